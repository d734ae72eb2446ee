"""Heat maps: planted signals are found in the scan's own space by each method, and refusals in words."""

import copy

import nibabel
import numpy as np
import pytest
import torch

from diagnosis.maps import explain, occlusion
from diagnosis.maps.network_view import NetworkView
from model import NETWORKS
from scans.prepare import prepare, restore
from scans.read import read
from studies import Contract
from tests.explained import SMALL, Finder, as_map, chain, prepared_of, randomise, weights_of


def head_with_cube(codes: str, spacing: tuple[float, ...], centre: tuple[float, ...]):
    """A head of four layers with a bright cube of 15 mm, stored in some axis order; the cube's middle in mm."""
    size = np.round(np.array([190, 230, 215]) / spacing).astype(int)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -size * spacing / 2 + (3, -17, 40)
    mm = [affine[a, 3] + spacing[a] * np.arange(size[a]) for a in range(3)]
    x, y, z = np.meshgrid(*mm, indexing="ij", sparse=True)
    middle = affine[:3, 3] + size * spacing / 2
    radius = ((x - middle[0]) / 78) ** 2 + ((y - middle[1]) / 97) ** 2 + ((z - middle[2]) / 88) ** 2
    texture = 20 * np.sin(x / 9) * np.cos(y / 7) + 15 * np.sin(z / 5)
    layers_ = [(1.0, 310), (0.86, 60), (0.78, 240), (0.6, 320)]  # scalp, skull, grey and white matter
    target = middle + centre
    cube = (np.abs(x - target[0]) <= 7.5) & (np.abs(y - target[1]) <= 7.5) & (np.abs(z - target[2]) <= 7.5)
    voxels = np.zeros(cube.shape)
    for reach, value in layers_:
        voxels = np.where(radius < reach, value + texture, voxels)
    voxels[cube] = 800
    image = nibabel.Nifti1Image(voxels.astype(np.int16), affine)
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(tuple(codes))
    )
    inside = np.argwhere(cube).mean(0)  # where the cube's voxels really ended up
    return image.as_reoriented(turn), affine[:3, :3] @ inside + affine[:3, 3]


CASES = [
    ("RAS", (1.5, 1.5, 1.5), (30, 40, 20)),
    ("LPS", (2.0, 1.0, 2.0), (-35, -45, 25)),
    ("PIR", (1.2, 2.0, 1.6), (38, -20, -35)),
    ("SAL", (1.0, 2.2, 1.8), (-20, 50, -15)),
]
# Occlusion takes twenty times as long as the others; what lays its map on the scan is the same.
BY_METHOD = [(method, *case) for method in explain.METHODS for case in CASES[2 if method == "occlusion" else 0 :]]


@pytest.mark.parametrize(("method", "codes", "spacing", "centre"), BY_METHOD)
def test_a_planted_cube_is_found_in_the_scans_own_space(method, codes, spacing, centre, tmp_path, monkeypatch):
    monkeypatch.setattr(occlusion, "FINER", 12)  # quicker; the cube touches no more patches of a size
    image, true = head_with_cube(codes, spacing, centre)
    nibabel.save(image, tmp_path / "head.nii")
    scan = read(tmp_path / "head.nii")
    prepared = prepare(scan, SMALL)
    found = explain.explain(weights_of(Finder()), prepared, "yes", method)
    values = restore(found.values, prepared, scan)
    strong = np.where(values > values.max() / 10, values, 0)
    index = np.array([(strong * grid).sum() for grid in np.indices(values.shape)]) / strong.sum()
    place = scan.affine[:3, :3] @ index + scan.affine[:3, 3]
    assert np.linalg.norm(place - true) <= 3.0


def test_agreement_is_rank_correlation_over_the_foreground():
    values = np.random.default_rng(0).normal(size=(12, 12, 12))
    inside = torch.zeros(12, 12, 12, dtype=torch.bool)
    inside[2:10] = True
    bent = np.where(inside.numpy(), np.exp(values), 99)  # the same order inside, anything outside
    assert explain.agreement(as_map(values), as_map(bent), inside) == pytest.approx(1)
    assert explain.agreement(as_map(values), as_map(-values), inside) == pytest.approx(-1)
    assert explain.agreement(as_map(values), as_map(np.zeros_like(values)), inside) == 0


def test_a_map_that_outlives_shuffled_weights_is_told_from_one_that_does_not(cube):
    prepared = prepared_of(cube[0])
    learned = weights_of(chain(), codes="abc")
    made = explain.explain(learned, prepared, "a", "relevance")
    assert explain.randomised(learned, prepared, made) < explain.SAME

    class Deaf(Finder):  # answers by its own rule, whatever its last layer says
        def head(self, features):
            return torch.stack([features.sum(1), features.new_zeros(len(features))], 1)

    prepared = prepared_of(torch.randn(1, *SMALL.shape, generator=torch.Generator().manual_seed(2)) * 3)
    deaf = weights_of(Deaf(bright=0.0))
    made = explain.explain(deaf, prepared, "yes", "relevance")
    assert explain.randomised(deaf, prepared, made) >= explain.SAME


def test_refusals_name_what_there_is(cube):
    weights = weights_of(chain(), codes="abc")
    with pytest.raises(explain.ExplainError, match="'saliency' is unknown; choose grad-cam, occlusion, relevance"):
        explain.explain(weights, prepared_of(cube[0]), "a", "saliency")
    with pytest.raises(explain.ExplainError, match="class 'z' is unknown; made has a, b, c"):
        explain.explain(weights, prepared_of(cube[0]), "z")


def test_progress_ends_at_one(cube):
    heard = []
    explain.explain(weights_of(chain(), codes="abc"), prepared_of(cube[0]), "a", "occlusion", heard.append)
    assert heard == sorted(heard) and heard[-1] == 1


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"ClassificationModel3D"}))
def test_every_picture_network_has_its_maps(name):
    torch.manual_seed(0)
    network = randomise(NETWORKS[name](2))
    side = {"SliceCNN": 100, "VGGFeatures": 224}.get(name, 64)
    weights = weights_of(network, Contract(kind="image", shape=(side, side), channels=3))
    x = torch.randn(3, side, side)
    view = NetworkView(network, torch.Size([1, 3, side, side]), 0)
    expected = view.score(network(x[None])).item()
    for method in ("grad-cam", "relevance"):
        found = explain.explain(weights, prepared_of(x), "yes", method)
        assert found.values.shape == (side, side) and np.isfinite(found.values).all()
        assert found.score == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert np.abs(found.values).sum() < 1000 * abs(expected)  # shares that do not blow up
    [(start, step), _] = view.cells
    assert 0 <= start <= step <= 32


def test_the_network_in_use_is_left_as_it_is(cube):
    network = chain()
    before = copy.deepcopy(network.state_dict())
    for method in explain.METHODS:
        explain.explain(weights_of(network, codes="abc"), prepared_of(cube[0]), "a", method)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
