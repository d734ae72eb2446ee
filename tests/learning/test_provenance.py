"""Where weights come from: the words about the data, and whom the weights before them had seen."""

from pathlib import Path

import pytest

from data.cases import Case
from data.splits import subject_hash
from learning import provenance
from learning.settings import TrainError
from networks.header import Header
from studies import STUDIES

BEFORE = Header(
    STUDIES["alzheimers"],
    "made",
    training={
        "subject_salt": "salt",
        "subject_hashes": {
            part: [subject_hash(name, "salt")] for part, name in (("train", "a"), ("val", "b"), ("test", "c"))
        },
    },
)


def test_the_data_in_words():
    counts = {"name": "heads", "scans": 9, "people": 4}
    assert provenance.data_in_words(counts, 0) == "“heads”: 9 scans of 4 subjects"
    assert provenance.data_in_words(counts, 2).endswith("4 subjects (2 more left out, identical to others)")


def test_what_a_folder_says_of_itself(tmp_path):
    assert provenance.about(tmp_path) is None
    (tmp_path / "about.txt").write_text("  " + "x" * 5000, encoding="utf-8")
    (tmp_path / "table.csv").touch()
    assert provenance.about(tmp_path) == provenance.about(tmp_path / "table.csv") == "x" * 2000


def test_weights_that_saw_those_to_be_tested_on_are_no_beginning():
    def case(name: str) -> Case:
        return Case(Path(f"{name}.nii"), "AD", name, "test")

    provenance.check_unseen(BEFORE, [case("c"), case("d")], "first")
    for name in "ab":
        with pytest.raises(TrainError, match="--init first: it learned from subjects to be tested on here"):
            provenance.check_unseen(BEFORE, [case("c"), case(name)], "first")


def test_the_people_of_each_part_in_brief():
    ages = [("a", "61"), ("b", "62"), ("c", "63"), ("d", "64"), ("e", "65"), ("f", "66")]
    cases = [
        Case(Path(f"{name}.nii"), "AD", name, "train", (("age", age), ("sex", "FM"[int(age) % 2])))
        for name, age in ages
    ]
    told = provenance.described(
        [*cases, Case(Path("g.nii"), "AD", "g", "train"), Case(Path("h.nii"), "AD", "h", "val")]
    )
    age = told["age"]["train"]
    assert (age["mean"], age["low"], age["high"], age["unknown"]) == (63.5, 61, 66, 1)
    assert age["deviation"] == pytest.approx(3.5**0.5)  # of 1 to 6
    assert told["sex"] == {"train": {"counts": {"M": 3, "F": 3}, "unknown": 1}}
    assert set(told) == {"age", "sex"} and "val" not in told["age"]


def test_every_command_that_led_to_weights_begun_with_is_kept():
    named = lambda **training: Header(STUDIES["alzheimers"], "made", training=training)  # noqa: E731
    first = named(command="one", epochs=3, commit="a")
    second = named(command="two", epochs=5, commit="b", begun_with=provenance.begun_with(first))
    third = provenance.begun_with(second)
    assert third == {"command": "one\ntwo", "epochs": 5, "commit": "b"}
    assert provenance.begun_with(named())["command"] is None
