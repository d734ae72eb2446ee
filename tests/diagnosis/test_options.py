"""The arguments that commands share: what is given of each, and which coverage is none."""

import argparse

import pytest

from diagnosis import options


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    for add in (
        options.add_weights,
        options.add_judging,
        options.add_segmenter,
        options.add_norms,
        options.add_networks,
        options.add_device,
    ):
        add(made)
    return made


def test_without_a_word_the_bundled_weights_judge_with_care(parser):
    assert vars(parser.parse_args([])) == {
        "weights": None,
        "study": None,
        "level": 0.9,
        "judge_anyway": False,
        "uncertainty": False,
        "segmenter": "beside",
        "norms": "beside",
        "allow_network": [],
        "device": "auto",
        "precision": "auto",
    }


@pytest.mark.parametrize("level", ["0.49", "1", "nan", "-0.9"])
def test_a_coverage_that_is_none_is_refused(parser, capsys, level):
    with pytest.raises(SystemExit):
        options.check_judging(parser, parser.parse_args(["--level", level]))
    assert f"--level {float(level)}: give a coverage from 0.5 to below 1" in capsys.readouterr().err
    options.check_judging(parser, parser.parse_args(["--level", "0.5"]))
