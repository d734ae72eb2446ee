"""Cohorts of simulated pictures: the layout that training takes, and what an interrupted command leaves."""

import csv

import numpy as np
import pytest
from PIL import Image

import simulate
from data.cases import find
from simulation.pictures import cohort
from simulation.pictures.table import SIMULATORS
from studies import STUDIES


def two_of(seed, label):
    """Two quick pictures a subject."""
    numbers = np.random.default_rng(seed)
    for level in (1, 2):
        yield numbers.integers(0, 255, (32, 40), dtype=np.uint8), {"class": label, "level": level}


@pytest.fixture(params=sorted(SIMULATORS))
def study(request, monkeypatch):
    monkeypatch.setitem(SIMULATORS, request.param, two_of)
    return STUDIES[request.param]


def table(out):
    with (out / "truth.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def command(study, out, subjects):
    words = [
        "--study",
        study.key,
        "--subjects",
        subjects,
        "--out",
        out,
        "--seed",
        6,
        "--test",
        0.5,
        "--workers",
        1,
    ]
    simulate.main([str(word) for word in words])


def test_pictures_lie_as_training_takes_them_each_subject_in_one_part(study, tmp_path):
    each = len(study.codes)
    command(study, tmp_path, 4 * each)
    rows = table(tmp_path)
    assert len(rows) == 8 * each and {row["class"] for row in rows} == set(study.codes)
    assert f"--study {study.key} --subjects {4 * each} --seed 6" in (tmp_path / "about.txt").read_text()
    cases = find(tmp_path, study)
    assert {case.label for case in cases} == set(study.codes)
    assert {case.subject for case in cases} == {row["subject"] for row in rows}
    held_out = {case.subject for case in cases if case.split == "test"}
    assert len(held_out) == 2 * each
    assert not held_out & {case.subject for case in cases if case.split != "test"}
    with Image.open(tmp_path / rows[0]["file"]) as picture:
        assert picture.size == (40, 32) and picture.mode == "L" and picture.format == "JPEG"


def test_what_is_there_is_kept_and_what_is_missing_is_drawn_again(study, tmp_path):
    command(study, tmp_path, 2)
    first, *_, last = (tmp_path / row["file"] for row in table(tmp_path))
    before, kept = first.read_bytes(), last.stat().st_mtime_ns
    first.unlink()
    command(study, tmp_path, 3)
    assert first.read_bytes() == before and last.stat().st_mtime_ns == kept
    assert len(table(tmp_path)) == 6


def test_an_interrupted_command_says_what_it_has_drawn(study, tmp_path, monkeypatch):
    def until_stopped(seed, label):
        if seed == (6, 1):
            raise KeyboardInterrupt
        yield from two_of(seed, label)

    monkeypatch.setitem(SIMULATORS, study.key, until_stopped)
    with pytest.raises(KeyboardInterrupt):
        command(study, tmp_path, 3)
    assert [row["subject"] for row in table(tmp_path)] == ["sub-s0006n00000"] * 2
    assert list(cohort.kept(tmp_path)) == [table(tmp_path)[0]["file"].rpartition("_")[0]]
