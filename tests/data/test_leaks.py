"""Leaks of every kind, found and refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from data.cases import Case, DataError
from data.leaks import Leaks, contradictions, deduplicate, leaks
from tests.labelled import picture, volume


def test_leaks_of_every_kind_are_listed(tmp_path):
    one = picture(tmp_path / "train/a.png", 1)
    other = picture(tmp_path / "test/b.png", 2)
    copy = Path(shutil.copy(one, tmp_path / "test/copy.png"))
    again = tmp_path / "val/again.png"
    again.parent.mkdir()
    Image.open(other).save(again, compress_level=0)  # other bytes, the same pixels
    twin = Path(shutil.copy(other, tmp_path / "test/twin.png"))
    third = picture(tmp_path / "train/c.png", 3)
    found = leaks(
        [
            Case(one, "no", "p1", "train"),
            Case(other, "no", "p2", "test"),
            Case(copy, "yes", "p3", "test"),
            Case(again, "no", "p4", "val"),
            Case(twin, "no", "p5", "test"),
            Case(third, "no", "p2", "train"),
        ]
    )
    assert {(why, a.file, b.file) for why, a, b in found.pairs} == {
        ("same subject p2", third, other),
        ("same bytes", one, copy),
        ("same pixels", again, other),
        ("same pixels", again, twin),
    }
    assert [[case.file for case in group] for group in found.duplicates] == [[other, twin]]
    text = str(found)
    assert "4 leaks between splits:" in text and "same bytes: train train/a.png – test test/copy.png" in text
    assert "1 group of identical pictures inside a split:\n  test: test/b.png, test/twin.png" in text


def test_the_same_volume_compressed_is_the_same_picture(tmp_path):
    cases = [
        Case(volume(tmp_path / name, 1), "AD", name, split)
        for name, split in (("a.nii", "train"), ("b.nii.gz", "test"))
    ]
    assert [pair[0] for pair in leaks(cases).pairs] == ["same pixels"]


def test_long_lists_are_cut_with_their_count(tmp_path):
    file = picture(tmp_path / "a.png")
    cases = [Case(file, "no", str(n // 2), ("train", "test")[n % 2]) for n in range(60)]
    pairs = tuple(("same subject", *pair) for pair in zip(cases[::2], cases[1::2], strict=True))
    lines = str(Leaks(pairs, ())).splitlines()
    assert lines[0] == "30 leaks between splits:" and len(lines) == 22 and lines[-1] == "  and 10 more"


def test_what_cannot_be_read_does_not_stop_the_check(tmp_path):
    cases = [Case(volume(tmp_path / f"{n}.nii", n, bad=n == 1), "AD", str(n), "train") for n in range(3)]
    found = leaks(cases)
    assert not found.pairs and [case.subject for case, _ in found.unreadable] == ["1"]
    assert "1 file that cannot be read" in str(found)


def test_deduplicate_keeps_the_test_case_and_refuses_contradictory_labels(tmp_path):
    one = picture(tmp_path / "a.png", 1)
    copy = Path(shutil.copy(one, tmp_path / "b.png"))
    cases = [
        Case(one, "no", "1", "train"),
        Case(copy, "no", "2", "test"),
        Case(picture(tmp_path / "c.png", 2), "yes", "3", "train"),
    ]
    assert deduplicate(cases) == cases[1:]
    contradictory = [replace(cases[0], label="yes"), *cases[1:]]
    with pytest.raises(DataError, match=r"labels differ: no, yes"):
        deduplicate(contradictory)
    assert deduplicate(contradictory, refuse=False) == cases[2:]
    [line] = contradictions(leaks(contradictory))
    assert "a.png" in line and "b.png" in line and "labels differ: no, yes" in line
