"""Scores against formulas written out here, intervals over people, calibration, refusals, and what is written."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from torch import nn

import evaluate
import model
import studies
from data.cases import find
from data.splits import subject_hash, write_split
from learning import card
from learning.calibration import example, fit_calibration, fit_likeness, precision
from learning.scoring import (
    READINGS,
    Answers,
    Predictions,
    ece,
    measure,
    regroup,
    reliability,
    scores,
    with_intervals,
)
from networks.base import Network
from studies import STUDIES, Contract, Label, Study

LABELS = (Label("AD", "ill", 1.0), Label("CN", "well", 0.0), Label("MCI", "between", 0.5))
STUDY = Study(
    "tiny",
    "Tiny volumes",
    "Which?",
    LABELS,
    Contract("volume", (4, 4, 4), spacing=(1.0, 1.0, 1.0), place="fill", scale="stored"),
    "Brightest",
    ("Brightest",),
    "Tests.",
)
FIVE = studies.STUDIES["alzheimers"].labels


class Brightest(Network):
    """Answers by the mean brightness, 1 to 3, which class it is."""

    def __init__(self, classes: int):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))
        self.register_buffer("levels", torch.arange(1.0, classes + 1))

    def base(self, x):
        return torch.stack([x.mean((1, 2, 3, 4)), x.amax((1, 2, 3, 4))], 1)  # (N, 2)

    def head(self, features):
        return -self.scale * (features[:, :1] - self.levels) ** 2  # (N, K)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A weights file that learned from the subjects sub-000 and sub-001."""
    monkeypatch.setitem(model.NETWORKS, "Brightest", Brightest)
    seen = {"train": [subject_hash("sub-000")], "val": [subject_hash("sub-001")], "test": []}
    header = {
        "title": "Tiny",
        "study": studies.to_record(STUDY),
        "network": {"name": "Brightest"},
        "training": {"data": "nothing", "subject_hashes": seen},
        "calibration": {
            "temperature": 2.0,
            "cohort": "nobody",
            "subjects": 19,
            "cases": 19,
            "scores": [i / 20 for i in range(19)],
        },
    }
    return model.save(tmp_path / "tiny.Brightest.safetensors", Brightest(3), header)


def cohort(folder: Path, people: int, first: int = 0) -> Path:
    """`people` of each class with two scans each, brightness as the class says, one of each class misleading."""
    random = np.random.default_rng(0)
    for place, label in enumerate(STUDY.labels):
        for i in range(people):
            for scan in range(2):
                level = (place + 1 if i else (place + 1) % 3 + 1) + random.normal(0, 0.1)
                file = folder / label.code / f"sub-{first + people * place + i:03}_{scan}.nii"
                file.parent.mkdir(parents=True, exist_ok=True)
                values = np.full((4, 4, 4), level, np.float32) + random.normal(0, 0.01, (4, 4, 4))
                nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)), file)
    return folder


def answers(n: int = 60, labels: tuple[Label, ...] = FIVE, seed: int = 0) -> Answers:
    random = np.random.default_rng(seed)
    truth = random.integers(0, len(labels), n)
    p = random.dirichlet(np.ones(len(labels)), n) + 0.3 * np.eye(len(labels))[truth]
    p /= p.sum(1, keepdims=True)
    return Answers(truth, p, p > 0.15, labels)


# ---- the measures


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


# ---- what is fitted


def test_the_temperature_undoes_a_known_overconfidence():
    random = np.random.default_rng(3)
    logits = random.normal(0, 1.5, (4000, 3))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = (p.cumsum(1) > random.random((4000, 1))).argmax(1)  # drawn by these very probabilities
    fitted = fit_calibration(3 * logits, truth, "made", 4000)
    assert fitted["temperature"] == pytest.approx(3, rel=0.08)
    assert fitted["ece"]["after"] < 0.03 < fitted["ece"]["before"]
    assert fitted["scores"] == sorted(fitted["scores"]) and len(fitted["scores"]) == 4000


def test_a_few_easy_subjects_do_not_make_it_sure_of_everybody():
    truth = np.arange(40) % 2
    logits = np.eye(2)[truth]  # all right, at 0.73: only an ever smaller temperature would be likelier
    few, many = (fit_calibration(logits, truth, "made", count)["temperature"] for count in (4, 4000))
    assert many < 0.3 < 0.7 < few < 1


def test_prediction_sets_cover_new_cases_as_promised():
    random = np.random.default_rng(4)

    def draw(n):
        logits = random.normal(0, 1.5, (n, 3))
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return logits, (p.cumsum(1) > random.random((n, 1))).argmax(1)

    fitted = fit_calibration(*draw(2000), "made", 2000)
    logits, truth = draw(2000)
    predictions = Predictions(
        [""] * 2000, [str(i) for i in range(2000)], [LABELS[i].code for i in truth], logits, logits
    )
    found = scores(predictions, replace(STUDY, labels=LABELS), fitted, rounds=3)
    assert found["metrics"]["coverage"]["value"] == pytest.approx(0.9, abs=0.025)


def test_likeness_knows_strangers():
    random = np.random.default_rng(5)
    spread = np.diag([1.0, 5.0, 0.2])
    contract = Contract(kind="image", shape=(48, 48))

    def draw(n):
        features = random.normal(size=(n, 3)) @ spread
        picture = np.outer(np.hanning(48), np.hanning(48))  # the same in all, but for its noise
        sketches = (picture + random.normal(0, 0.1, (n, 48, 48))).astype(np.float16)
        return Predictions([""] * n, [""] * n, [""] * n, np.empty((n, 2)), features, sketches)

    record, extras = fit_likeness(draw(600), draw(400), contract)
    assert extras["features.mean"].dtype == extras["features.precision"].dtype == torch.float32
    # distances of a normal cloud follow chi with 3 degrees of freedom: 99 of 100 are below 3.37
    assert record["threshold"] == pytest.approx(3.37, rel=0.12)
    offset = np.array([0.0, 0.0, 2.0]) - extras["features.mean"].numpy()  # ten deviations off
    assert np.sqrt(offset @ extras["features.precision"].numpy() @ offset) > 2 * record["threshold"]


# ---- the command line


def run(weights: Path, data: Path, out: Path, *more: str) -> int:
    return evaluate.main(
        [
            str(weights),
            "--data",
            str(data),
            "--out",
            str(out),
            "--workers",
            "0",
            "--rounds",
            "30",
            "--cache",
            str(out.parent / "cache"),
            "--device",
            "cpu",
            *more,
        ]
    )


def test_scores_and_files_of_a_known_network(tmp_path, weights, capsys):
    data, out = cohort(tmp_path / "people", 4, first=10), tmp_path / "out"
    assert run(weights, data, out) == 0
    found = json.loads((out / "metrics.json").read_text())
    assert (found["subjects"], found["cases"], found["cohort"]) == (12, 24, "“people”")
    accuracy = found["metrics"]["accuracy"]
    assert accuracy["value"] == 0.75  # one person in four of each class misleads
    assert accuracy["low"] < 0.75 < accuracy["high"]
    assert found["confusion"] == [[6, 2, 0], [0, 6, 2], [2, 0, 6]]
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    assert rows[0]["file"] == "AD/sub-010_0.nii"
    assert set(rows[0]) == {"file", "label", "prediction", "AD", "CN", "MCI"}
    assert sum(float(rows[0][code]) for code in STUDY.codes) == pytest.approx(1, abs=1e-5)
    assert sum(row["label"] == row["prediction"] for row in rows) == 18
    told = json.loads((out / "predictions.json").read_text())
    assert [(one["file"], one["label"], one["prediction"]) for one in told] == [
        (row["file"], row["label"], row["prediction"]) for row in rows
    ]
    assert told[0]["probabilities"]["CN"] == pytest.approx(float(rows[0]["CN"]), abs=1e-6)
    assert {file.name for file in out.iterdir()} == {
        "metrics.json",
        "predictions.csv",
        "predictions.json",
        "card.md",
        "confusion.png",
        "roc.png",
        "reliability.png",
    }
    assert "accuracy" in capsys.readouterr().out


def test_people_who_were_learned_from_are_refused(tmp_path, weights, capsys):
    data, out = cohort(tmp_path / "people", 2), tmp_path / "out"
    assert run(weights, data, out) == 1
    said = capsys.readouterr().err
    assert "2 of 6 subjects were learned from: sub-000, sub-001" in said
    assert not out.exists()
    table = tmp_path / "split.csv"
    cases = [
        replace(case, split="train" if case.subject in ("sub-000", "sub-001") else "test")
        for case in find(data, STUDY)
    ]
    write_split(table, cases, data)
    assert run(weights, data, out, "--split", str(table)) == 0
    assert json.loads((out / "metrics.json").read_text())["subjects"] == 4
    assert run(weights, data, tmp_path / "asked", "--split", str(table), "--part", "train") == 0
    assert "no score on new people" in (tmp_path / "asked" / "card.md").read_text()


def test_only_the_test_folder_is_scored_where_there_is_one(tmp_path, weights):
    data = cohort(tmp_path / "people", 2)  # sub-000 and sub-001 among them
    cohort(data / "test", 2, first=20)
    assert run(weights, data, tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["subjects"] == 6


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--part", "val"), "no case in part val"),
        (("--device", "cuda:99"), "cuda:99"),
    ],
)
def test_refusals_in_words(tmp_path, weights, capsys, more, words):
    assert run(weights, cohort(tmp_path / "people", 1, first=10), tmp_path / "out", *more) == 1
    assert words in capsys.readouterr().err


def test_unreadable_scans_are_refused(tmp_path, weights, capsys):
    data = cohort(tmp_path / "people", 2, first=10)
    (data / "AD" / "sub-010_0.nii").write_bytes(b"no scan")
    assert run(weights, data, tmp_path / "out") == 1
    assert "1 of 12 files cannot be read" in capsys.readouterr().err


def test_the_published_measures_of_two_classes_come_with_intervals():
    study = STUDIES["brain-tumour"]
    draw = np.random.default_rng(1)
    labels = ["no", "yes"] * 20
    logits = draw.normal(size=(40, 2)) + np.eye(2)[[study.codes.index(label) for label in labels]] * 1.5
    names = [f"{i}" for i in range(40)]
    predictions = Predictions(names, names, labels, logits, logits)
    found = scores(predictions, study, None, rounds=50)["metrics"]
    for name in ("sensitivity.yes", "specificity.yes", "roc_auc", "accuracy", "kappa"):
        assert found[name]["low"] < found[name]["value"] < found[name]["high"]
    # by hand: of the sick those called sick, of the healthy those called healthy, and chance taken off
    says, truth = logits.argmax(1), np.array([study.codes.index(label) for label in labels])
    agreed, chance = (says == truth).mean(), sum((says == k).mean() * (truth == k).mean() for k in (0, 1))
    assert found["sensitivity.yes"]["value"] == pytest.approx(says[truth == 1].mean())
    assert found["specificity.yes"]["value"] == pytest.approx(1 - says[truth == 0].mean())
    assert found["kappa"]["value"] == pytest.approx((agreed - chance) / (1 - chance))


@pytest.mark.parametrize(("count", "dead"), [(50, 0), (50, 3), (5, 0), (5, 3), (5, 8)])
def test_the_precision_is_scikit_learns_whether_cases_or_features_are_more(count, dead):
    values = np.random.default_rng(0).normal(size=(count, 8)) * np.arange(1, 9)
    values[:, :dead] = 1
    known = LedoitWolf().fit(values)
    np.testing.assert_allclose(precision(values, known), known.precision_, atol=1e-9)


def test_one_worked_answer_is_what_the_network_says(tmp_path, weights):
    file = next(cohort(tmp_path / "people", 1).rglob("*.nii"))
    loaded = model.load(weights, "cpu")
    told = example(loaded, file)
    level = nibabel.load(file).get_fdata().mean()
    powers = np.exp(-4 * (level - np.array([1, 2, 3])) ** 2 / 2)  # temperature 2
    assert told["file"] == file.name
    assert list(told["probabilities"].values()) == pytest.approx((powers / powers.sum()).tolist(), abs=1e-4)


# ---- the card


def test_the_card_says_what_is_not_known():
    header = {"study": studies.to_record(STUDY)}
    text = card.card(header)
    assert studies.NOTICE in text
    for words in ("Not measured", "Source: unknown", "raw softmax", "## How to make it again\n\nUnknown"):
        assert words in text
    assert card.value({"value": None, "low": None, "high": None}) == "not defined"
    assert card.value({"value": 0.5, "low": 0.25, "high": 0.75}) == "0.500 (0.250 to 0.750)"
