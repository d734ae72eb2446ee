"""One simulated head: its header, its structures, the template it stands on."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from nilearn.datasets import load_mni152_template

from simulation import phantom


@pytest.fixture(scope="module")
def template():
    return load_mni152_template(resolution=1)


def test_severity_zero_without_jitter_is_the_template(aged, template):
    made = aged[0.0]
    shift = np.linalg.inv(template.affine) @ made.affine
    assert np.allclose(shift[:3, :3], np.eye(3)) and np.allclose(shift, np.rint(shift))
    start = np.rint(shift[:3, 3]).astype(int)
    assert (start == 0).all() and made.shape == template.shape
    assert np.allclose(np.asarray(made.dataobj), np.asarray(template.dataobj), atol=1e-4)


def test_the_header_places_the_head_whatever_the_axis_order():
    """Two axis orders of one head are the same picture in the world."""
    recipe = phantom.plain(0.5, spacing=(2.0, 2.0, 2.0), dtype="int16", white=1000.0, oblique=(5.0, 0.0, 3.0))
    one, other = (phantom.render(replace(recipe, orientation=code)) for code in ("RAS", "PIL"))
    assert nib.aff2axcodes(other.affine) == ("P", "I", "L")
    back = nib.as_closest_canonical(other)
    assert np.allclose(back.affine, one.affine, atol=1e-4)
    assert np.array_equal(np.asarray(back.dataobj), np.asarray(one.dataobj))


@pytest.mark.parametrize("loss", [0.3, 0.8])
def test_the_hippocampi_lose_tissue_on_their_own(loss):
    """Neither ventricles nor horns change with them, and the side that loses more becomes the smaller one."""
    whole, less = (
        replace(phantom.plain(0.3), amounts=phantom.amounts_of(0.3) | {"hippocampi": mm}) for mm in (0.0, loss)
    )
    before, after = (phantom.structures(recipe) for recipe in (whole, less))
    count = lambda there, name: int((there == phantom.STRUCTURES.index(name)).sum())  # noqa: E731
    # The surface moves inwards by `loss` mm; a staircase of voxels has 1.5 times the faces of that surface.
    hippocampus = before == phantom.STRUCTURES.index("hippocampus")
    surface = sum(np.abs(np.diff(hippocampus.astype(int), axis=axis)).sum() for axis in range(3)) / 1.5  # mm²
    lost = count(before, "hippocampus") - count(after, "hippocampus")
    assert lost == pytest.approx(surface * loss, rel=0.35)
    for name in ("lateral", "third", "cerebellum"):
        assert count(after, name) == pytest.approx(count(before, name), rel=0.01)
    tilted = replace(less, tilts={"hippocampi": (0.5, 0.0)})
    hippocampus = phantom.structures(tilted) == phantom.STRUCTURES.index("hippocampus")
    middle = hippocampus.shape[0] // 2
    assert hippocampus[middle:].sum() < 0.95 * hippocampus[:middle].sum()


def test_structures_lie_where_the_image_shows_them():
    recipe = replace(phantom.plain(0.5), orientation="LPI")
    image, there = np.asarray(phantom.render(recipe).dataobj), phantom.structures(recipe)
    assert there.shape == image.shape
    mean = lambda name: image[there == phantom.STRUCTURES.index(name)].mean()  # noqa: E731
    assert mean("lateral") < 0.5 < mean("cortex") < mean("white")
    assert (there[image == 0] <= phantom.STRUCTURES.index("fluid")).mean() > 0.999
