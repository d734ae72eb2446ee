"""Scores by their definitions, with intervals over people."""

import numpy as np
import pytest

import studies
from networks.header import Header
from scoring.predictions import Predictions
from scoring.scores import (
    READINGS,
    Answers,
    ece,
    measure,
    operating_points,
    regroup,
    reliability,
    scores,
    with_intervals,
)
from studies import STUDIES, Label
from tests.labelled import VOLUME
from tests.scored import LABELS

FIVE = studies.STUDIES["alzheimers"].labels


def answers(n: int = 60, labels: tuple[Label, ...] = FIVE, seed: int = 0) -> Answers:
    random = np.random.default_rng(seed)
    truth = random.integers(0, len(labels), n)
    p = random.dirichlet(np.ones(len(labels)), n) + 0.3 * np.eye(len(labels))[truth]
    p /= p.sum(1, keepdims=True)
    return Answers(truth, p, p > 0.15, labels)


@pytest.mark.parametrize("labels", [FIVE, LABELS, (Label("no", "no"), Label("yes", "yes"))], ids=len)
def test_measures_by_their_definitions(labels):
    a = answers(labels=labels)
    found, chosen, classes = measure(a), a.p.argmax(1), range(len(labels))
    assert found["accuracy"] == pytest.approx((chosen == a.truth).mean())
    recalls = [(chosen == i)[a.truth == i].mean() for i in classes]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert found["brier"] == pytest.approx(
        ((a.p - np.eye(len(labels))[a.truth]) ** 2).sum(1).mean() / (2 if len(labels) == 2 else 1)
    )
    for i, label in enumerate(labels):
        is_it, said = a.truth == i, chosen == i
        assert found[f"sensitivity.{label.code}"] == pytest.approx(said[is_it].mean())
        assert found[f"specificity.{label.code}"] == pytest.approx((~said)[~is_it].mean())
        assert found[f"precision.{label.code}"] == pytest.approx(is_it[said].mean())
        assert found[f"npv.{label.code}"] == pytest.approx((~is_it)[~said].mean())
        ranked = is_it[np.argsort(-a.p[:, i], kind="stable")]  # no two probabilities are the same here
        exact = [ranked[: n + 1].mean() for n in np.flatnonzero(ranked)]
        assert found[f"pr_auc.{label.code}"] == pytest.approx(np.mean(exact))
        better = [(x > y) + 0.5 * (x == y) for x in a.p[is_it, i] for y in a.p[~is_it, i]]
        assert found[f"roc_auc.{label.code}"] == pytest.approx(np.mean(better))
    assert found["coverage"] == pytest.approx(a.held[np.arange(len(a.truth)), a.truth].mean())
    assert found["set_size"] == pytest.approx(a.held.sum(1).mean())
    weight = np.ones((len(labels), len(labels))) - np.eye(len(labels))
    ordered = labels[0].severity is not None
    places = np.arange(len(labels))
    if ordered:  # kappa punishes by the number of steps of severity between the two
        by_severity = sorted(classes, key=lambda i: labels[i].severity)
        places = np.array([by_severity.index(i) for i in classes])
        weight = np.abs(np.subtract.outer(places, places))
    seen = weight[a.truth, chosen].mean()
    chance = np.mean([[weight[t, c] for c in chosen] for t in a.truth])
    assert found["kappa"] == pytest.approx(1 - seen / chance)
    if ordered:
        steps = np.abs(places[a.truth] - places[chosen])
        assert found["one_step_accuracy"] == pytest.approx((steps <= 1).mean())


def test_calibration_error_by_hand():
    truth = np.array([0, 0, 1, 1])
    p = np.array([[0.95, 0.05], [0.91, 0.09], [0.93, 0.07], [0.35, 0.65]])
    # nine tenths and more: stated (.95 + .91 + .93) / 3 = .93, right 2/3; six tenths: stated .65, right 1
    rows = reliability(truth, p)
    assert [(row["count"], row["low"]) for row in rows] == [(1, 0.6), (3, 0.9)]
    assert ece(truth, p) == pytest.approx((3 * abs(0.93 - 2 / 3) + 0.35) / 4)
    assert ece(np.array([0]), np.array([[1.0, 0.0]])) == 0
    known = Answers(truth, p, None, FIVE[:2], unscaled=np.array([[1.0, 0.0]] * 4))  # sure, and right half the time
    assert measure(known)["ece_unscaled"] == pytest.approx(0.5)


def test_what_cases_do_not_define_is_not_a_number():
    one_class = measure(Answers(np.zeros(5, int), np.tile([0.8, 0.1, 0.1], (5, 1)), None, LABELS))
    undefined = {name for name, value in one_class.items() if np.isnan(value)}
    assert undefined >= {"roc_auc", "kappa", "severity_correlation", "sensitivity.CN", "specificity.AD"}
    assert one_class["accuracy"] == 1


def test_intervals_are_over_people_not_scans():
    a = answers(40, LABELS)
    ten_times = a.take(np.repeat(np.arange(40), 10))
    people = [f"{i}" for i in range(40)]
    alone = with_intervals(a, people, 100, 1)["accuracy"]
    scans = with_intervals(ten_times, list(np.repeat(people, 10)), 100, 1)["accuracy"]
    assert scans == pytest.approx(alone)  # ten copies of each person tell nothing new
    share = alone["value"]
    normal = 1.96 * np.sqrt(share * (1 - share) / 40)
    assert alone["high"] - alone["low"] == pytest.approx(2 * normal, rel=0.35)


def test_a_class_missing_from_a_resample_is_no_crash():
    a = Answers(np.array([0, 0, 0, 0, 1]), np.tile([0.5, 0.3, 0.2], (5, 1)), None, LABELS)
    found = with_intervals(a, list("abcde"), 50, 0)
    assert found["roc_auc.MCI"] == {"value": None, "low": None, "high": None}
    assert found["accuracy"]["value"] == pytest.approx(0.8)


def test_shares_of_all_and_of_none_have_wilson_s_intervals():
    truth = np.array([0, 0, 0, 1, 1, 2])
    a = Answers(truth, np.eye(3)[truth] * 0.7 + 0.1, None, LABELS)
    found = with_intervals(a, list("aabbcd"), 50, 0)
    assert found["accuracy"]["low"] == pytest.approx(4 / (4 + 3.8415), abs=1e-4)  # four people, z² = 3.8415
    assert found["sensitivity.AD"]["low"] == pytest.approx(2 / (2 + 3.8415), abs=1e-4)  # of them two are ill
    assert found["specificity.AD"]["high"] == 1.0
    assert found["roc_auc"]["low"] == 1.0  # no share: as it is resampled


def test_operating_points_are_thresholds_of_other_people():
    truth = np.array([0, 0, 0, 1, 1, 1])
    p = np.array([0.9, 0.6, 0.3, 0.55, 0.2, 0.1])
    a = Answers(truth, np.stack([p, 1 - p, 0 * p], 1), None, LABELS)
    header = Header(VOLUME, "X", calibration={"operating_points": {"AD": {"0.9": 0.5}, "gone": {"0.9": 0.1}}})
    (point,) = operating_points(a, list("abcdef"), header, 40, 0)
    assert (point["code"], point["wanted"], point["threshold"]) == ("AD", 0.9, 0.5)
    assert point["sensitivity"]["value"] == pytest.approx(2 / 3)
    assert point["specificity"]["value"] == pytest.approx(2 / 3)
    assert point["specificity"]["low"] < 2 / 3 < point["specificity"]["high"]


def test_the_coarser_readings_gather_classes():
    codes = [label.code for label in FIVE]  # AD, CN, MCI, EMCI, LMCI
    p = np.array([[0.4, 0.0, 0.2, 0.2, 0.2], [0.1, 0.3, 0.2, 0.2, 0.2], [0.6, 0.2, 0.0, 0.1, 0.1]])
    a = Answers(np.array([codes.index("LMCI"), codes.index("CN"), codes.index("AD")]), p, None, FIVE)
    three, rows = regroup(a, READINGS["alzheimers"]["three classes"])
    assert [label.code for label in three.labels] == ["CN", "MCI", "AD"] and rows.tolist() == [0, 1, 2]
    assert three.truth.tolist() == [1, 0, 2]
    assert np.allclose(three.p, [[0, 0.6, 0.4], [0.3, 0.6, 0.1], [0.2, 0.2, 0.6]])
    two, rows = regroup(a, READINGS["alzheimers"]["two classes"])
    assert rows.tolist() == [1, 2] and two.truth.tolist() == [0, 1]
    assert np.allclose(two.p, [[0.75, 0.25], [0.25, 0.75]])


def test_the_published_measures_of_two_classes_come_with_intervals():
    study = STUDIES["brain-tumour"]
    draw = np.random.default_rng(1)
    labels = ["no", "yes"] * 20
    logits = draw.normal(size=(40, 2)) + np.eye(2)[[study.codes.index(label) for label in labels]] * 1.5
    names = [f"{i}" for i in range(40)]
    predictions = Predictions(names, names, labels, logits, logits)
    found = scores(predictions, Header(study, "X"), rounds=50)["metrics"]
    for name in ("sensitivity.yes", "specificity.yes", "roc_auc", "accuracy", "kappa"):
        assert found[name]["low"] < found[name]["value"] < found[name]["high"]
    # by hand: of the sick those called sick, of the healthy those called healthy, and chance taken off
    says, truth = logits.argmax(1), np.array([study.codes.index(label) for label in labels])
    agreed, chance = (says == truth).mean(), sum((says == k).mean() * (truth == k).mean() for k in (0, 1))
    assert found["sensitivity.yes"]["value"] == pytest.approx(says[truth == 1].mean())
    assert found["specificity.yes"]["value"] == pytest.approx(1 - says[truth == 0].mean())
    assert found["kappa"]["value"] == pytest.approx((agreed - chance) / (1 - chance))
