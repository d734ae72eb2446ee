"""Splits and folds: by person, in proportion, the same in any order."""

import csv
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from data.cases import Case, DataError, find
from data.splits import assign, folds, read_split, subject_hash, write_split
from tests.labelled import PICTURE, VOLUME, empty


def people(count: int, scans_each: int = 2) -> list[Case]:
    return [
        Case(Path(f"/d/{label}/{n:03}_S_{1000 + n}_{m}.nii"), label, f"{n:03}_S_{1000 + n}")
        for n in range(count)
        for m in range(scans_each)
        for label in [("AD", "CN", "MCI")[n % 3]]
    ]


def test_a_split_is_by_person_in_proportion_and_the_same_in_any_order():
    cases = people(60)
    divided = assign(cases, seed=3)
    sides = defaultdict(set)
    for case in divided:
        sides[case.subject].add(case.split)
    assert all(len(splits) == 1 for splits in sides.values())
    for label in ("AD", "CN", "MCI"):  # 20 people each: 20 % are 4, 15 % are 3
        part = Counter(case.split for case in divided if case.label == label)
        assert part == {"test": 8, "val": 6, "train": 26}
    assert set(assign(cases[::-1], seed=3)) == set(divided)
    assert set(assign(cases, seed=4)) != set(divided)


@pytest.mark.parametrize(
    "count, expected", [(1, {"train": 1}), (2, {"train": 1, "test": 1}), (3, {"train": 1, "val": 1, "test": 1})]
)
def test_small_classes_keep_one_to_learn_from(count, expected):
    cases = [Case(Path(f"{n}.nii"), "AD", str(n)) for n in range(count)]
    assert Counter(case.split for case in assign(cases, 0)) == expected


def test_what_is_divided_already_stays():
    cases = [replace(case, split="test") if case.subject < "009" else case for case in people(30)]
    divided = assign(cases, 0)
    assert [a.split for a in divided if a.subject < "009"] == ["test"] * 18
    assert {case.split for case in divided if case.subject >= "009"} == {"train", "val"}


def test_an_undivided_scan_of_a_divided_person_is_to_learn_from():
    cases = [replace(case, split=split) for case in people(30, 1) for split in ("test", None)]
    assert {case.split for case in assign(cases, 0)[1::2]} == {"train"}  # and is listed as a leak


def test_folds_hold_out_every_person_once():
    cases = people(12)
    ways = folds(cases, 4, seed=0)
    held = Counter(case.subject for way in ways for case in way if case.split == "test")
    assert held == dict.fromkeys({case.subject for case in cases}, 2)  # both scans, once
    assert all(not datasets_share(way) for way in ways)
    assert [set(way) for way in folds(cases[::-1], 4, seed=0)] == [set(way) for way in ways]
    assert [len(folds(cases, k, seed=0)) for k in (2, 8)] == [2, 8]


@pytest.mark.parametrize("k", [0, 1, 9, 13])
def test_folds_that_cannot_be_are_refused(k):
    with pytest.raises(DataError, match=f"^{k} folds of 12 undivided subjects; choose from 2 to 8$"):
        folds(people(12), k, seed=0)


def datasets_share(way: list[Case]) -> set[str]:
    parts = [{case.subject for case in way if case.split == split} for split in ("train", "val", "test")]
    return (parts[0] & parts[1]) | (parts[0] & parts[2]) | (parts[1] & parts[2])


def test_a_written_split_reads_back(tmp_path):
    data = tmp_path / "data"
    empty(data, *(f"{c}/{n}.png" for c in ("no", "yes") for n in range(4)))
    divided = assign(find(data, PICTURE), 0)
    write_split(tmp_path / "out" / "split.csv", divided, data)
    assert read_split(tmp_path / "out" / "split.csv", data, PICTURE) == divided
    with (tmp_path / "out" / "split.csv").open() as lines:
        assert next(csv.DictReader(lines))["file"] == "no/0.png"
    with pytest.raises(DataError, match="unknown labels"):
        read_split(tmp_path / "out" / "split.csv", data, VOLUME)


def test_a_subject_hash_is_stable_and_says_nothing():
    assert subject_hash("002_S_0413") == subject_hash("002_S_0413")
    assert subject_hash("002_S_0413") != subject_hash("002_S_0414")
    assert set(subject_hash("002_S_0413")) <= set("0123456789abcdef")
