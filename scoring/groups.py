"""Scores apart for groups of people, such as sexes, decades of age, sites or scanners."""

from collections import defaultdict
from typing import Any

from data.splits import decade
from data.tables import DataError
from networks.header import Header
from scoring.card import FEW_IN_GROUP
from scoring.predictions import Predictions
from scoring.scores import scores

SHOWN = ("accuracy", "balanced_accuracy", "roc_auc", "ece", "mae", "r2", "coverage")


def by(predictions: Predictions, header: Header, names: list[str], rounds: int, seed: int) -> dict[str, Any]:
    """For each name the groups, the largest first: how many people, the scores, and whether they are few."""
    known = {name for told in predictions.groups for name in told}
    missing = [name for name in names if name not in known]
    if missing:
        raise DataError(
            f"--by {','.join(missing)}: no case tells it; known are {', '.join(sorted(known)) or 'none'}: add "
            "such a column to the table of the data"
        )
    return {name: apart(predictions, header, name, rounds, seed) for name in names}


def apart(predictions: Predictions, header: Header, name: str, rounds: int, seed: int) -> dict[str, Any]:
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, told in enumerate(predictions.groups):
        value = told.get(name, "unknown")
        places[decade(value) if name == "age" else value].append(place)
    found = {}
    for value, rows in sorted(places.items(), key=lambda item: (-len(item[1]), item[0])):
        measured = scores(predictions.take(rows), header, rounds, seed)
        found[value] = {
            "subjects": measured["subjects"],
            "cases": measured["cases"],
            "few": measured["subjects"] < FEW_IN_GROUP,
            "metrics": {key: measured["metrics"][key] for key in SHOWN if key in measured["metrics"]},
        }
    return found
