"""The command of the simulated cohorts: what it writes, keeps and refuses."""

import csv

import nibabel as nib
import numpy as np
import pytest

import simulate


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
