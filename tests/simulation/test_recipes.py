"""Recipes: severity decides the class, subject k is the same in every cohort."""

import numpy as np
import pytest

import simulate
from simulation import recipes
from simulation.anatomy import REGIONS


def test_sides_are_drawn_without_favour():
    drawn = [simulate.draw((3, k)) for k in range(600)]
    for region in REGIONS:
        shares = np.array([recipe.tilts[region][0] for recipe in drawn])
        assert abs(shares.mean()) < 4 * shares.std() / len(shares) ** 0.5
        assert (shares > 0).any() and (shares < 0).any()


def test_severity_decides_the_class_and_the_class_the_severity():
    for code, centre in simulate.CLASSES.items():
        drawn = [simulate.draw((5, k), code).severity for k in range(300)]
        assert np.mean(drawn) == pytest.approx(centre, abs=4 * recipes.SPREAD / 300**0.5)
        assert np.std(drawn) == pytest.approx(recipes.SPREAD, rel=0.2)
    assert simulate.draw((1,), severity=0.72).label == "LMCI"
    assert simulate.draw((1,), severity=0.72).severity == 0.72


def test_severity_is_what_ventricles_and_hippocampi_lost_together():
    drawn = [simulate.draw((6, k)) for k in range(400)]
    severity = np.array([recipe.severity for recipe in drawn])
    full = {"ventricles": 11.5, "hippocampi": 1.4}  # mm at severity 1
    lost = {name: np.array([recipe.amounts[name] for recipe in drawn]) / mm for name, mm in full.items()}
    for each in lost.values():  # one of them alone leaves severity open
        assert 0.75 < np.corrcoef(severity, each)[0, 1] < 0.97
    together = 0.6 * lost["ventricles"] + 0.4 * lost["hippocampi"]
    assert np.corrcoef(severity, together)[0, 1] > 0.98
    assert np.abs(together - severity).max() < 0.15


def test_a_cohort_holds_what_hospitals_send():
    drawn = [simulate.draw((7, k)) for k in range(400)]
    assert 0.6 < np.mean([not recipe.stripped for recipe in drawn]) < 0.8
    assert {recipe.stripped for recipe in drawn} == {"", "mask", "loose", "tissue"}
    assert {recipe.dtype for recipe in drawn} == {"int16", "uint8", "float32"}
    assert len({recipe.orientation for recipe in drawn}) > 20
    finest, coarsest = min(min(r.spacing) for r in drawn), max(max(r.spacing) for r in drawn)
    assert 0.8 <= finest < 0.85 and 2.7 < coarsest <= 3.0
    assert any(any(recipe.oblique) for recipe in drawn) and any(recipe.slope != 1 for recipe in drawn)


def test_subject_k_is_the_same_in_every_cohort():
    few, many = list(simulate.cohort(10, 4, 0.2)), list(simulate.cohort(50, 4, 0.2))
    assert few == many[:10]
    assert few[0][1] != next(simulate.cohort(1, 5, 0.2))[1]


def test_test_heads_are_spread_over_the_classes():
    names = [name for name, _ in simulate.cohort(100, 1, 0.2)]
    held = [name.split("/")[1] for name in names if name.startswith("test/")]
    assert sorted(held) == sorted(list(simulate.CLASSES) * 4)
    assert not any(name.startswith("test/") for name, _ in simulate.cohort(100, 1, 0.0))
