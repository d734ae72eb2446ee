"""A cohort measured for the header: true severities before labels, bad scans left out, the file still opens."""

from pathlib import Path

import pytest

import model
from data.cases import Case
from diagnosis import agreement
from diagnosis.agreement import GROWS
from diagnosis.diagnoser import Diagnoser
from learning import anatomy
from studies import STUDIES
from tests import support
from tests.segmenters import by_brightness

STUDY = STUDIES["alzheimers"]


@pytest.fixture
def cohort(tmp_path, monkeypatch) -> Path:
    """Two phantoms and a file that is none."""
    monkeypatch.setattr(agreement, "FEWEST", 2)
    monkeypatch.setattr(anatomy, "FEWEST", 2)
    data = tmp_path / "heads"
    for label in ("AD", "CN"):
        (data / label).mkdir(parents=True)
        support.save_nifti(data / label / f"sub-{label}.nii.gz", *support.phantom(4.0))
    (data / "CN" / "sub-bad.nii").write_bytes(b"no scan")
    return data


def test_severity_is_the_true_one_where_it_is_known_and_the_label_s_elsewhere(tmp_path):
    (tmp_path / "truth.csv").write_text("file,severity\nAD/a.nii,0.83\n")
    cases = [Case(tmp_path / "AD" / "a.nii", "AD", "a"), Case(tmp_path / "b.nii", "MCI", "b")]
    assert anatomy.severities(cases, STUDY, tmp_path) == [0.83, 0.5]


def test_the_command_measures_a_cohort_and_writes_it_into_the_weights(cohort, tmp_path, capsys):
    folder = support.untrained(tmp_path / "weights")
    by_brightness(folder)
    path = next(folder.glob("alz*"))
    before = model.load(path, "cpu")
    assert anatomy.main([str(path), "--data", str(cohort)]) == 0
    said = capsys.readouterr()
    assert "left out: sub-bad.nii" in said.err and "anatomy of 2 scans" in said.out
    after = model.load(path, "cpu")
    both = zip(before.network.parameters(), after.network.parameters(), strict=True)
    assert all((a == b).all() for a, b in both)
    table = after.header.anatomy
    diagnoser = Diagnoser(path, "cpu")
    assert table["segmenter"] == diagnoser.segmenter.sha256 and table["cohort"] == "“heads”"
    ventricles = diagnoser(cohort / "AD" / "sub-AD.nii.gz").measures[GROWS].value  # both heads are the same
    assert table["groups"][0]["measures"][GROWS] == pytest.approx([ventricles] * 5, abs=1e-3)
    assert "2 brains of “heads”" in after.header.card


def test_what_cannot_be_done_is_said(cohort, tmp_path, capsys, monkeypatch):
    folder = support.untrained(tmp_path / "weights")
    path = next(folder.glob("alz*"))
    assert anatomy.main([str(path), "--data", str(cohort)]) == 2
    assert "no segmenter.safetensors beside it" in capsys.readouterr().err
    by_brightness(folder)
    monkeypatch.setattr(anatomy, "FEWEST", 100)
    assert anatomy.main([str(path), "--data", str(cohort)]) == 2
    assert "3 scans of alzheimers" in capsys.readouterr().err
