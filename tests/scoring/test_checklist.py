"""The checklist: every item once, what is known filled in, the rest left open."""

import re

from networks.header import Header
from scoring.checklist import ITEMS, OPEN, checklist
from tests.scored import STUDY

TRAINING = {
    "data": "“heads”: 9 scans of 4 subjects",
    "flow": [{"step": "found", "scans": 12, "people": 5}, {"step": "readable", "scans": 9, "people": 4}],
    "people": {"age": {"train": {"mean": 70.0, "deviation": 5.0, "low": 61, "high": 82, "unknown": 1}}},
    "subjects": {"train": {"AD": 2, "CN": 1}, "val": {"AD": 0, "CN": 1}},
    "leaks_allowed": 3,
    "epochs": 7,
    "versions": {"torch": "2"},
    "settings": {"optimiser": "adam", "class_weights": True, "select": "roc_auc"},
}


def test_every_item_stands_once():
    text = checklist(Header(STUDY, "Brightest"))
    rows = re.findall(r"^\| (\S+) \| (.*?) \| (.*?) \| (.*?) \|$", text, re.M)
    assert [row[0] for row in rows if row[0][0].isdigit()] == [item[0] for item in ITEMS]
    assert sum(row[3] == OPEN for row in rows) > 15
    told = " ".join(item[1] for item in ITEMS)
    named = set()
    for low, high in re.findall(r"(\d+)(?:–(\d+))?", told):
        named |= set(range(int(low), int(high or low) + 1))
    assert named == set(range(1, 45))  # of CLAIM, all


def test_what_the_file_knows_is_filled_in():
    scores = {
        "cohort": "“others”",
        "metrics": {"accuracy": {"value": 0.5, "low": 0.25, "high": 0.75}},
        "groups": {"sex": {"F": {"subjects": 3, "metrics": {}, "few": True}}},
    }
    text = checklist(Header(STUDY, "Brightest", training=TRAINING, scores=scores))
    for words in (
        "found 12; readable 9; age in train: 70.0 ± 5.0 (61 to 82); unknown 1",
        "4 subjects; why so many is to be written",
        "but 3 were allowed",
        "validation roc_auc",
        "rare classes weighted up",
        "accuracy 0.500 (0.250 to 0.750)",
        "sex F: 3 subjects",
    ):
        assert words in text
