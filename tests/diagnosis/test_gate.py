"""The gate: heads are fit, what is no whole head is not, and every reason has its words."""

import dataclasses
import math
import string
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from diagnosis import gate, likeness
from learning.settings import coarser
from networks.header import Header
from scans.origin import Acquisition
from scans.prepare import prepare
from scans.read import read
from scans.scan import Scan
from studies import HEAD, STUDIES
from tests import heads
from tests.gated import PICTURE, codes, scan_of
from tests.support import ROOT

HEADER = Header(STUDIES["alzheimers"], "made")


@pytest.mark.parametrize("bare", [False, True], ids=["whole", "skull-stripped"])
@pytest.mark.parametrize("axes", ["RAS", "LPI", "SAL"])
def test_a_head_is_fit(sketched, bare, axes):
    voxels, affine = heads.reorder(*heads.head(2.5, stripped=bare), tuple(axes))
    assert codes(scan_of(voxels * 7 + 100, affine), sketched) == (gate.FIT, set())


def ball(radius=70.0):
    at = (np.indices((64, 64, 64)) - 31.5) * 3
    return np.where(np.linalg.norm(at, axis=0) < radius, 500.0, 0.0), np.diag([3.0, 3, 3, 1])


def noise():
    return np.random.default_rng(0).normal(100, 20, (64, 64, 64)), np.diag([3.0, 3, 3, 1])


def constant_but_one():
    voxels = np.full((64, 64, 64), 7.0)
    voxels[3, 3, 3] = 8
    return voxels, np.diag([3.0, 3, 3, 1])


def upside_down():
    voxels, affine = heads.head(3.0)
    return voxels[:, :, ::-1], affine


def back_to_front():
    voxels, affine = heads.head(3.0)
    return voxels[:, ::-1], affine


def half():
    voxels, affine = heads.head(3.0)
    return voxels[: voxels.shape[0] // 2], affine


def slab():
    voxels, affine = heads.head(3.0)
    return voxels[:, :, 40:54], affine


def tiny():
    voxels, affine = heads.head(3.0)
    return voxels, np.diag([0.1, 0.1, 0.1, 1]) @ affine


@pytest.mark.parametrize("make", [ball, noise, constant_but_one, upside_down, half, slab, tiny])
def test_what_is_no_whole_head_cannot_be_judged(sketched, make):
    verdict, found = codes(scan_of(*make()), sketched)
    assert verdict == gate.UNFIT and found


def test_a_head_back_to_front_is_not_fit(sketched):
    assert codes(scan_of(*back_to_front()), sketched)[0] != gate.FIT


@pytest.mark.parametrize(
    ("facts", "code", "verdict"),
    [
        ({"affine_known": False}, "no-affine", gate.DOUBTFUL),
        ({"spacing": [1.0, 1.0, 6.0]}, "thick-slices", gate.DOUBTFUL),
        ({"modality": "CT"}, "wrong-modality", gate.UNFIT),
        ({"modality": "MR"}, None, gate.FIT),
    ],
)
def test_the_header_speaks(sketched, facts, code, verdict):
    assert codes(scan_of(*heads.head(3.0), **facts), sketched) == (verdict, {code} if code else set())


def test_a_scan_that_misses_the_forehead_says_how_much(sketched):
    voxels, affine = heads.head(3.0)
    verdict, found = codes(scan_of(voxels[:, : voxels.shape[1] * 6 // 10], affine), sketched)
    assert verdict != gate.FIT and "cut-off" in found


def test_an_emptied_part_counts_as_cut_off(sketched):
    voxels, affine = heads.head(3.0)
    voxels[:, :, : voxels.shape[2] // 2] = 0
    verdict, found = codes(scan_of(voxels, affine), sketched)
    assert verdict != gate.FIT and "cut-off" in found


def layered(cortex, white):
    """A bare brain with 3.5 mm of cortex around white matter, and fluid in its middle."""
    at = (np.indices((80, 100, 84)) - np.array([39.5, 49.5, 41.5]).reshape(3, 1, 1, 1)) * 2
    depth = (1 - np.linalg.norm(at / np.array([67, 84, 70]).reshape(3, 1, 1, 1), axis=0)) * 70  # about, mm
    fluid = np.linalg.norm(at / np.array([24, 36, 18]).reshape(3, 1, 1, 1), axis=0) < 1
    brain = np.where(fluid, 25, np.where(depth < 3.5, cortex, white))
    return np.where(depth < 0, 0, brain), np.diag([2.0, 2, 2, 1])


def test_deep_tissue_darker_than_cortex_is_no_t1():
    t1, flair = (
        gate.contrast(prepare(scan_of(*layered(*tones)), HEAD), HEAD) for tones in ((120.0, 140.0), (140.0, 120.0))
    )
    assert flair < gate.T1_CONTRAST < t1


def test_a_plane_of_specks_is_not_filled():
    """The fullest plane holds 400 voxels: 20 are specks, 28 are a part of the head."""
    foreground = torch.zeros(12, 30, 30, dtype=torch.bool)
    foreground[3:8, 5:25, 5:25] = True
    foreground[1, 10, 5:25] = True
    foreground[9, 10:14, 5:12] = True
    low, high = gate._filled(foreground, (1, 1, 1))
    assert (low[0], high[0]) == (3, 10)  # as a slice


def test_noise_is_measured_against_what_there_is_to_see():
    tensor = torch.from_numpy(np.random.default_rng(1).normal(0, 0.5, (1, 60, 60, 60))).float()
    assert gate.noise(SimpleNamespace(tensor=tensor)) == pytest.approx(1.0, rel=0.05)
    tensor[..., 30:] += 4.0  # two tissues, 2 above and below their mean
    assert gate.noise(SimpleNamespace(tensor=tensor)) == pytest.approx(0.5 / math.hypot(2.0, 0.5), rel=0.05)


@pytest.mark.parametrize(("share", "verdict"), [(0.05, gate.FIT), (0.5, gate.DOUBTFUL)])
def test_a_noisy_head_is_doubted(sketched, share, verdict):
    voxels, affine = heads.head(1.2)
    random = np.random.default_rng(2).normal(0, share * voxels[voxels > voxels.mean()].mean(), voxels.shape)
    found = codes(scan_of(np.abs(voxels + random), affine), sketched)
    assert found == (verdict, {"noisy"} if verdict == gate.DOUBTFUL else set())


@pytest.mark.parametrize("shape", [(110, 170, 170), (83, 128, 128), (78, 86, 86)])
def test_a_coarser_grid_is_judged_alike(shape):
    """The example heads are fit on it too, whose voxels differ more; turned over they are not."""
    contract = coarser(HEAD, shape)
    scans = [read(ROOT / "demodata" / f"{name}.nii.gz") for name in ("demo", "demo-cn")]
    drawn = [likeness.sketch(prepare(scan, contract).tensor, contract) for scan in scans]
    known = SimpleNamespace(
        contract=contract, header=HEADER, extras={"likeness.sketch": torch.stack(drawn).mean(0)}
    )
    for scan in scans:
        assert codes(scan, known) == (gate.FIT, set())
        assert codes(replace(scan, voxels=np.ascontiguousarray(scan.voxels[:, :, ::-1])), known)[0] == gate.UNFIT


def test_without_a_sketch_only_the_header_and_the_size_speak():
    bare = SimpleNamespace(contract=HEAD, header=HEADER, extras={})
    assert codes(scan_of(*heads.head(3.0)), bare) == (gate.FIT, set())


def test_features_far_from_those_learned_from_are_doubted():
    extras = {"features.mean": torch.zeros(3), "features.precision": torch.diag(torch.tensor([1.0, 4.0, 1.0]))}
    weights = SimpleNamespace(header=replace(HEADER, likeness={"threshold": 3.0}), extras=extras)
    assert gate.after(torch.tensor([0.0, 1.4, 0.0]), weights) == []
    (finding,) = gate.after(torch.tensor([0.0, 2.0, 0.0]), weights)
    assert finding.code == "unlike-training" and finding.values["distance"] == pytest.approx(4.0)
    assert gate.after(torch.zeros(3), SimpleNamespace(header=HEADER, extras={})) == []


def picture(seed=0, size=96, colour=False):
    """A bright ring on black with some noise: the same kind of picture for every seed."""
    random = np.random.default_rng(seed)
    at = np.indices((size, size)) / size - 0.5
    radius = np.hypot(*at)
    grey = 200 * ((radius > 0.2) & (radius < 0.35)) + 40 * random.random((size, size))
    pixels = np.repeat(grey[..., None], 3, 2).astype(np.uint8)
    if colour:
        pixels[..., 0] //= 3
    return Scan(pixels, np.eye(4), "image", {"shape": [size, size]})


@pytest.fixture(scope="module")
def picture_weights():
    drawn = [likeness.sketch(prepare(picture(seed), PICTURE).tensor, PICTURE) for seed in range(5)]
    return SimpleNamespace(
        contract=PICTURE,
        header=replace(HEADER, likeness={"match": 0.8}),
        extras={"likeness.sketch": torch.stack(drawn).mean(0)},
    )


def test_pictures_of_the_kind_pass_and_others_do_not(picture_weights):
    assert codes(picture(9), picture_weights) == (gate.FIT, set())
    stripes = picture(9)
    stripes = dataclasses.replace(
        stripes,
        voxels=np.tile(stripes.voxels[:, :1] * 0 + 255, (1, 96, 1))
        * (np.arange(96)[:, None, None] // 6 % 2).astype(np.uint8),
    )
    assert codes(stripes, picture_weights) == (gate.UNFIT, {"no-such-picture"})
    assert codes(picture(9, colour=True), picture_weights)[1] >= {"coloured"}
    assert codes(picture(9, size=24), picture_weights)[1] >= {"tiny"}


@pytest.mark.parametrize(("less", "coloured"), [(0, False), (11, False), (16, True)])
def test_a_tint_is_no_colour(picture_weights, less, coloured):
    """Brightness 20 to 240, one channel `less`: 11 of 231 are 5 %, 16 of 236 are 7, and 6 are the bound."""
    scan = picture(9)
    voxels = np.interp(scan.voxels, (scan.voxels.min(), scan.voxels.max()), (20, 240))
    voxels[..., 0] -= less
    _, found = codes(dataclasses.replace(scan, voxels=voxels.astype(np.uint8)), picture_weights)
    assert ("coloured" in found) == coloured


@pytest.mark.parametrize("code", gate.REASONS)
def test_every_reason_is_a_sentence_with_a_way_out(code):
    text = gate.REASONS[code]
    assert text[0].isupper() and text.endswith(".")
    assert len([part for part in text.split(". ") if part]) >= 2 or ";" in text
    assert list(string.Formatter().parse(text))


def test_the_brain_is_looked_for_as_many_millimetres_off_as_the_sketch_lies_cells_off(sketched, monkeypatch):
    """Cells of HEAD are 3 × 4 × 4 voxels of 1.2 × 1 × 1 mm."""
    looked = []
    monkeypatch.setattr(gate.likeness, "match", lambda *_: likeness.Match(0.9, 0.3, None, (1.0, -2.0, 0.5)))
    monkeypatch.setattr(gate, "_outside", lambda *given: looked.append(given[-1]) or 0.0)
    scan = scan_of(*heads.head(3.0))
    gate.before(scan, prepare(scan, HEAD), sketched)
    assert looked == [pytest.approx((3.6, -8.0, 2.0))]


@pytest.mark.parametrize(
    ("told", "verdict", "reasons"),
    [
        (Acquisition(weighting="T1"), gate.FIT, set()),
        (Acquisition(weighting=None), gate.FIT, set()),
        (Acquisition(weighting="FLAIR"), gate.UNFIT, {"sequence-not-t1"}),
        (Acquisition(weighting="T1", contrast=True), gate.DOUBTFUL, {"contrast-agent"}),
    ],
)
def test_what_the_header_says_of_the_sequence(sketched, told, verdict, reasons):
    scan = replace(scan_of(*heads.head(2.5)), acquisition=told)
    assert codes(scan, sketched) == (verdict, reasons)
