"""The simulated cohort by its own physics: what fluid gains, tissue loses; nothing else knows left from right."""

import csv
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

import simulate
from simulation import phantom, recipes
from simulation.anatomy import REGIONS

nilearn = pytest.importorskip("nilearn.datasets", reason="the ICBM 152 templates come with nilearn")

SEVERITIES = (0.0, 0.4, 0.8, 1.2)


@pytest.fixture(scope="module")
def template():
    return nilearn.load_mni152_template(resolution=1)


@pytest.fixture(scope="module")
def aged():
    """Plain heads by severity; alike but for it."""
    return {severity: phantom.render(phantom.plain(severity)) for severity in SEVERITIES}


def box(image, low, high, side=0):
    """The voxels between two corners in mm; `side` -1 or 1 takes one half, 0 both."""
    x, y, z = (image.affine[i, 3] + np.arange(n) for i, n in enumerate(image.shape))
    inside = [(np.abs(x) >= low[0]) & (np.abs(x) <= high[0]) & ((x * side > 0) | (side == 0)),
              (y >= low[1]) & (y <= high[1]), (z >= low[2]) & (z <= high[2])]  # fmt: skip
    return np.asarray(image.dataobj)[np.ix_(*inside)]


def ventricles(image, side=0):
    """ml of fluid around the lateral ventricles; 0.46 lies between fluid and grey matter of the template."""
    return (box(image, (0, -45, 2), (30, 30, 32), side) < 0.46).sum() / 1000


def horns(image, side=0):
    return (box(image, (27, -36, -30), (47, -12, -8), side) < 0.46).sum() / 1000


def tissue(image):
    return (np.asarray(image.dataobj) > 0.46).sum() / 1000


def test_severity_zero_without_jitter_is_the_template(aged, template):
    made = aged[0.0]
    shift = np.linalg.inv(template.affine) @ made.affine
    assert np.allclose(shift[:3, :3], np.eye(3)) and np.allclose(shift, np.rint(shift))
    start = np.rint(shift[:3, 3]).astype(int)
    assert (start == 0).all() and made.shape == template.shape
    assert np.allclose(np.asarray(made.dataobj), np.asarray(template.dataobj), atol=1e-4)


def test_ventricles_and_temporal_horns_grow_and_tissue_falls(aged):
    for measure, sign in ((ventricles, 1), (horns, 1), (tissue, -1)):
        course = [measure(aged[severity]) for severity in SEVERITIES]
        assert (np.diff(course) * sign > 0).all(), (measure.__name__, course)


def test_the_scale_spans_what_adults_show(aged):
    """Ventricles from about one hundredth of the brain to several hundredths."""
    share = [ventricles(aged[s]) / (tissue(aged[s]) + ventricles(aged[s])) for s in (0.0, 1.2)]
    assert share[0] < 0.015 and share[1] > 0.04


def test_each_region_grows_alone():
    only = phantom.render(phantom.plain(0.0, amounts={"horns": 4.0}))
    none = phantom.render(phantom.plain(0.0))
    assert horns(only) > horns(none) + 0.5
    assert ventricles(only) == pytest.approx(ventricles(none), rel=0.08)


def test_plain_heads_are_symmetric_and_tilts_are_not(aged):
    assert ventricles(aged[0.8], -1) == pytest.approx(ventricles(aged[0.8], 1), rel=0.02)
    lopsided = phantom.render(phantom.plain(0.8, tilts={"ventricles": (0.25, 0.0), "horns": (-0.25, 0.0)}))
    assert ventricles(lopsided, 1) > 1.1 * ventricles(lopsided, -1)
    assert horns(lopsided, 1) < horns(lopsided, -1)


def test_sides_are_drawn_without_favour():
    drawn = [simulate.draw((3, k)) for k in range(600)]
    for region in REGIONS:
        shares = np.array([recipe.tilts[region][0] for recipe in drawn])
        assert abs(shares.mean()) < 4 * shares.std() / len(shares) ** 0.5
        assert (shares > 0).any() and (shares < 0).any()


def test_severity_decides_the_class_and_the_class_the_severity():
    for code, centre in simulate.CLASSES.items():
        drawn = [simulate.draw((5, k), code).severity for k in range(300)]
        assert np.mean(drawn) == pytest.approx(centre, abs=4 * recipes.SPREAD / 300**0.5)
        assert np.std(drawn) == pytest.approx(recipes.SPREAD, rel=0.2)
    assert simulate.draw((1,), severity=0.72).label == "LMCI"
    assert simulate.draw((1,), severity=0.72).severity == 0.72


def test_amounts_follow_severity_closely():
    drawn = [simulate.draw((6, k)) for k in range(400)]
    severity = [recipe.severity for recipe in drawn]
    assert np.corrcoef(severity, [recipe.amounts["ventricles"] for recipe in drawn])[0, 1] > 0.98


def test_a_cohort_holds_what_hospitals_send():
    drawn = [simulate.draw((7, k)) for k in range(400)]
    assert 0.6 < np.mean([not recipe.stripped for recipe in drawn]) < 0.8
    assert {recipe.stripped for recipe in drawn} == {"", "mask", "loose", "tissue"}
    assert {recipe.dtype for recipe in drawn} == {"int16", "uint8", "float32"}
    assert len({recipe.orientation for recipe in drawn}) > 20
    finest, coarsest = min(min(r.spacing) for r in drawn), max(max(r.spacing) for r in drawn)
    assert 0.8 <= finest < 0.85 and 2.7 < coarsest <= 3.0
    assert any(any(recipe.oblique) for recipe in drawn) and any(recipe.slope != 1 for recipe in drawn)


def test_subject_k_is_the_same_in_every_cohort():
    few, many = list(simulate.cohort(10, 4, 0.2)), list(simulate.cohort(50, 4, 0.2))
    assert few == many[:10]
    assert few[0][1] != next(simulate.cohort(1, 5, 0.2))[1]


def test_test_heads_are_spread_over_the_classes():
    names = [name for name, _ in simulate.cohort(100, 1, 0.2)]
    held = [name.split("/")[1] for name in names if name.startswith("test/")]
    assert sorted(held) == sorted(list(simulate.CLASSES) * 4)
    assert not any(name.startswith("test/") for name, _ in simulate.cohort(100, 1, 0.0))


def test_the_header_places_the_head_whatever_the_axis_order():
    """Two axis orders of one head are the same picture in the world."""
    recipe = phantom.plain(0.5, spacing=(2.0, 2.0, 2.0), dtype="int16", white=1000.0, oblique=(5.0, 0.0, 3.0))
    one, other = (phantom.render(replace(recipe, orientation=code)) for code in ("RAS", "PIL"))
    assert nib.aff2axcodes(other.affine) == ("P", "I", "L")
    back = nib.as_closest_canonical(other)
    assert np.allclose(back.affine, one.affine, atol=1e-4)
    assert np.array_equal(np.asarray(back.dataobj), np.asarray(one.dataobj))


def test_a_whole_head_has_scalp_where_a_stripped_one_has_nothing():
    whole, truth = simulate.head(8, severity=0.2, spacing=(2.0, 2.0, 2.0), stripped="", noise=0.0)
    bare, _ = simulate.head(8, severity=0.2, spacing=(2.0, 2.0, 2.0), stripped="mask", noise=0.0)
    assert truth["stripped"] == "no" and truth["severity"] == 0.2
    filled, brain = ((np.asarray(i.dataobj) > 0.1 * np.percentile(i.dataobj, 99)).sum() for i in (whole, bare))
    assert filled > 1.3 * brain
    assert np.percentile(bare.dataobj, 10) == 0


def test_the_command_writes_a_cohort_and_keeps_what_is_there(tmp_path):
    command = ["--subjects", "2", "--out", str(tmp_path), "--seed", "12", "--workers", "1", "--test", "0"]
    simulate.main(command)
    with (tmp_path / "truth.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == ["CN", "EMCI"]
    assert "simulate.py --subjects 2 --seed 12 --test 0.0" in (tmp_path / "about.txt").read_text()
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.nii.gz")) == sorted(
        row["file"] for row in rows
    )
    for (_, recipe), row in zip(simulate.cohort(2, 12, 0.0), rows, strict=True):
        image = nib.load(tmp_path / row["file"])
        assert "".join(nib.aff2axcodes(image.affine)) == row["orientation"] == recipe.orientation
        assert float(row["severity"]) == pytest.approx(recipe.severity, abs=1e-4)
        assert image.get_data_dtype() == recipe.dtype
        assert np.isfinite(image.get_fdata()).all() and image.get_fdata().std() > 0
    first, second = (tmp_path / row["file"] for row in rows)
    before, kept = first.read_bytes(), second.stat().st_mtime_ns
    first.unlink()
    simulate.main(command)
    assert first.read_bytes() == before
    assert second.stat().st_mtime_ns == kept
    assert not [p for p in tmp_path.rglob(".*") if p.is_file()]


@pytest.mark.parametrize(("argv", "words"), [
    ([], "--subjects and --out are needed"),
    (["--subjects", "0", "--out", "x"], "0 is not a count of 1 or more"),
    (["--subjects", "5", "--out", "x", "--test", "1.5"], "1.5 is not a share from 0 to below 1"),
])  # fmt: skip
def test_the_command_refuses_in_words(argv, words, capsys):
    with pytest.raises(SystemExit):
        simulate.main(argv)
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(simulate.DEMOS))
def test_demo_scans_are_small_whole_heads_of_no_training_cohort(name):
    file = simulate.DEMO_FOLDER / f"{name}.nii.gz"
    image = nib.load(file)
    assert file.stat().st_size <= 6_000_000
    assert image.get_data_dtype() == np.uint8
    assert image.header.get_zooms() == (1.0, 1.0, 1.0)
    assert simulate.DEMOS[name][1] >= 990001


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
