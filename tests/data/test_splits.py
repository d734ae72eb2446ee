"""Splits and folds: by person, in proportion, the same in any order."""

import csv
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from data.cases import Case, DataError, find
from data.splits import (
    assign,
    check_balance,
    folds,
    group_of,
    learned_from,
    read_split,
    subject_hash,
    write_split,
)
from networks.header import Header
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


@pytest.mark.parametrize("rest", [(), ("test",)])
def test_a_train_without_a_val_gives_one(rest):
    cases = [replace(case, split="test" if rest and case.subject < "009" else "train") for case in people(60)]
    divided = assign(cases, 0)
    free = [case for case in divided if case.split != "test"]
    assert len(divided) - len(free) == (18 if rest else 0)  # as it came; none is drawn where none was named
    val = {case.subject for case in free if case.split == "val"}
    assert len(val) in (8, 9) and not val & {case.subject for case in free if case.split == "train"}
    assert {case.split for case in assign(cases, 0, val=0)} == {"train", *rest}


def test_parts_are_balanced_on_what_is_named():
    cases = [
        replace(case, groups=(("sex", "FM"[i // 6 % 2]), ("age", str(60 + i % 7))))
        for i, case in enumerate(people(60))
    ]
    divided = assign(cases, 1, balance=["sex"])
    for split, women in (("test", 12), ("val", 9)):  # half of 24 and of 18 scans, within one person a class
        part = [case for case in divided if case.split == split]
        assert abs(sum(dict(case.groups)["sex"] == "F" for case in part) - women) <= 6
    assert Counter(case.split for case in divided) == Counter(case.split for case in assign(cases, 1))
    assert group_of(cases[8], ["sex", "age", "site"]) == ("M", "60–69", "")
    check_balance(cases, ["sex"])
    with pytest.raises(DataError, match="no case has site; known are age, sex: name columns age, sex, site"):
        check_balance(cases, ["site"])


def test_numbers_are_split_in_fifths():
    cases = [Case(Path(f"{n}.nii"), f"{n}.5", str(n)) for n in range(50)]
    held = [float(case.label) for case in assign(cases, 0, numeric=True) if case.split == "test"]
    assert sorted(int(value) // 10 for value in held) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


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
    divided[0] = replace(divided[0], groups=(("age", "71"), ("site", "3")))
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
    assert subject_hash("002_S_0413", "one") != subject_hash("002_S_0413", "two")


def test_subjects_are_known_by_each_file_s_own_salt():
    training = {
        "subject_salt": "new",
        "subject_hashes": {"train": [subject_hash("a", "new")], "val": [subject_hash("b", "new")], "test": ["x"]},
        "earlier_hashes": {"": [subject_hash("c")], "old": [subject_hash("d", "old")]},
    }
    header = Header(VOLUME, "any", training=training)
    assert learned_from(header, "abcde") == {"a", "b", "c", "d"}
    assert learned_from(Header(VOLUME, "any"), "abc") == set()
