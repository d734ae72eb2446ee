"""Where weights come from: the words about the data, and whom the weights before them had seen."""

from dataclasses import replace

import pytest

from learning import provenance
from learning.settings import TrainError
from networks.header import Header
from studies import STUDIES

BEFORE = Header(
    STUDIES["alzheimers"], "made", training={"subject_hashes": {"train": ["a"], "val": ["b"], "test": ["c"]}}
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


def test_whom_the_first_weights_learned_from_counts_as_learned_from():
    hashes = {"train": ["d"], "val": ["b"], "test": ["c"]}
    assert provenance.learned_before(BEFORE, hashes, "first") == ["a", "d"]
    with pytest.raises(TrainError, match="--init first: it learned from subjects to be tested on here"):
        provenance.learned_before(BEFORE, hashes | {"test": ["a"]}, "first")
    nobody = replace(BEFORE, training={})
    assert provenance.learned_before(nobody, hashes, "first") == ["d"]
