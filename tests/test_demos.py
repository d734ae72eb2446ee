"""Demonstration weights from nothing, in a tiny pass: simulated, trained, scored, halved, and they answer."""

import pytest
import torch
from safetensors.torch import load_file

import demos
import model
import simulate
from demos import DEMOS
from diagnosis.diagnoser import Diagnoser
from reports.wording import Texts, languages
from studies import STUDIES
from tests.support import ROOT

TINY = ["--epochs", "1", "--shape", "32", "32", "--rounds", "5", "--workers", "1"]


@pytest.fixture(scope="module", params=DEMOS)
def made(request, tmp_path_factory):
    """A study and its weights file, from three simulated people a class, one of them held out."""
    folder = tmp_path_factory.mktemp(request.param)
    study = STUDIES[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demos, "HELD_OUT", 0.34)
        argv = [study.key, "--weights", folder / "weights", "--work", folder / "work", *TINY]
        assert demos.main([*map(str, argv), "--subjects", str(3 * len(study.codes))]) == 0
    (path,) = (folder / "weights").iterdir()
    return study, path


def test_every_picture_study_has_one():
    pictures = {key for key, study in STUDIES.items() if study.contract.kind == "image"}
    assert set(DEMOS) == set(simulate.PICTURE_DEMOS) == pictures
    assert all(demo.network in STUDIES[study].networks for study, demo in DEMOS.items())


def test_the_file_says_what_it_learned_from_and_carries_scores(made):
    study, path = made
    header = model.read_header(path)
    assert path.name == f"{study.key}.{DEMOS[study.key].network}.safetensors"
    assert "simulated" in header.title and "not trained on patients" in header.title
    assert "no scans of people" in header.training["about"] and header.title in header.card
    assert header.scores["subjects"] == len(study.codes)  # the last of each class
    for language in languages():
        assert language == "en" or Texts(language).has(f"weights.{header.title}")


def test_large_tensors_have_16_bits_and_the_worked_example_replays(made):
    study, path = made
    tensors = {name: value for name, value in load_file(path).items() if name.startswith("network.")}
    assert {value.dtype for value in tensors.values() if value.ndim > 1} == {torch.float16}
    example = model.read_header(path).example
    picture = ROOT / "demodata" / f"{study.key}.jpg"
    assert example["file"] == picture.name and picture.stat().st_size <= 100_000
    answer = Diagnoser(path, "cpu")(picture, judge_anyway=True).record()
    assert answer["study"] == study.key
    assert answer["probabilities"] == pytest.approx(example["probabilities"], abs=1e-2)


def test_what_is_there_is_kept(made, capsys):
    study, path = made
    before = path.stat().st_mtime_ns
    assert demos.main([study.key, "--weights", str(path.parent)]) == 0
    assert path.stat().st_mtime_ns == before
    assert "take it away to make it anew" in capsys.readouterr().out


def test_an_unknown_study_is_refused_with_those_there_are(capsys):
    with pytest.raises(SystemExit):
        demos.main(["toes"])
    assert "toes: no picture study; there are " + ", ".join(DEMOS) in capsys.readouterr().err
