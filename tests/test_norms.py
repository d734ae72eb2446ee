"""The command that makes norms: a table becomes a file that opens for its own segmenter alone; refusals."""

import json

import pytest

import norms
from diagnosis.anatomy import norms as application
from diagnosis.anatomy import segment as segmenting
from learning import controls
from learning import norms as fitting
from learning.controls import Measured
from tests.label_maps import untrained
from tests.labelled import empty, table
from tests.norms import controls as known


@pytest.fixture
def segmenter(tmp_path):
    return untrained(tmp_path)


@pytest.fixture
def people(tmp_path, monkeypatch):
    """A table of controls, whose measures are known and need not be taken."""
    ages, sexes, rows = known(60)
    names = [f"Filename_{k}.nii.gz" for k in range(60)]
    empty(tmp_path, *names)
    lines = [f"{name},{age:.2f},{sex}" for name, age, sex in zip(names, ages, sexes, strict=True)]

    def measured(found, weights, quiet=False):
        done = [Measured(one, row) for one, row in zip(found, rows, strict=True)]
        return done[1:], [(found[0], "broken")]

    monkeypatch.setattr(controls, "measured", measured)
    monkeypatch.setattr(fitting, "MEASURES", {name: fitting.MEASURES[name] for name in norms.SHOWN})
    return table(tmp_path / "controls.csv", "\n".join(["file,age,sex", *lines]))


def test_a_table_becomes_norms_for_its_segmenter(tmp_path, people, segmenter, capsys):
    out = tmp_path / "made" / "norms.json"
    words = ["--data", people, "--out", out, "--segmenter", segmenter, "--rounds", "20", "--device", "cpu"]
    assert norms.main([str(word) for word in words]) == 0
    opened = application.load(out, segmenting.load(segmenter, "cpu").sha256)
    assert opened.people == 59 and sum(opened.sexes.values()) == 59
    said = capsys.readouterr()
    assert "left out: Filename_0.nii.gz: broken" in said.err
    assert "59 controls of" in said.out and "women" in said.out and "1 left out" in said.out
    assert "ventricles" in said.out and "5th" in said.out and "90% intervals from 20 draws" in said.out
    text = out.read_text()
    assert "Filename" not in text and str(tmp_path) not in text  # nobody's file, nobody's value
    assert "research use only" in json.loads(text)["notice"].lower()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "none.csv"], "none.csv: no such file"),
        (["--data", "none.csv", "--segmenter", "none.safetensors"], "none.safetensors"),
    ],
)
def test_what_cannot_be_made_is_refused_in_words(segmenter, capsys, words, said):
    given = words if "--segmenter" in words else [*words, "--segmenter", str(segmenter)]
    assert norms.main([*given, "--device", "cpu"]) == 1
    assert said in capsys.readouterr().err


def test_too_few_rounds_are_no_interval(capsys):
    with pytest.raises(SystemExit):
        norms.main(["--data", "x.csv", "--rounds", "5"])
    assert "--rounds 5: an interval of 90% needs 20" in capsys.readouterr().err
