"""The model card."""

import json

import model
import studies
import train
from networks.header import Header
from scoring import card
from tests.scored import STUDY
from tests.tiny_cohorts import VOLUME, arguments, cohort, weights_of


def test_the_card_says_what_is_not_known():
    text = card.card(Header(STUDY, "Brightest"))
    assert studies.NOTICE in text
    for words in ("Not measured", "Source: unknown", "raw softmax", "## How to make it again\n\nUnknown"):
        assert words in text
    assert card.value({"value": None, "low": None, "high": None}) == "not defined"
    assert card.value({"value": 0.5, "low": 0.25, "high": 0.75}) == "0.500 (0.250 to 0.750)"


def test_the_card_tells_what_the_data_are_and_what_came_before(tmp_path):
    data = cohort(tmp_path / "data", VOLUME)
    (data / "about.txt").write_text("Boxes of one brightness a class.\n")
    assert train.main(arguments(VOLUME, data, tmp_path / "first", "--seed", "1")) == 0
    first = weights_of(tmp_path / "first")
    again = ["--init", str(first), "--split", str(tmp_path / "first" / "split.csv")]
    assert train.main(arguments(VOLUME, data, tmp_path / "second", *again)) == 0
    second = weights_of(tmp_path / "second")
    before, after = model.read_header(first), model.read_header(second)
    assert after.training["begun_with"]["command"] == before.training["command"]
    assert after.training["settings"]["init"] == first.name  # nobody's folders go into a file for others
    assert str(tmp_path) not in json.dumps(after.record())
    for text in ("Boxes of one brightness a class.", before.training["command"], after.training["command"]):
        assert text in after.card
