"""Studies of one's own, all the way: found, checked, trained, scored, answered on command line and page."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import datasets
import diagnose
import evaluate
import model
import train
from data.study_file import study_of
from diagnosis.diagnoser import Diagnoser
from reports.html import html, templates
from reports.wording import Texts
from server.answers import Asked, results
from server.folder import Upload, Uploads
from server.page.views import result_view, table_row
from server.state import Job, Pool, ServerState
from tests.tiny_cohorts import IMAGE, VOLUME, arguments, cohort, picture, put, registered, weights_of

FILE = """
title: Three levels of brightness
classes:
  - {code: low, name: little, severity: 0}
  - {code: mid, name: some, severity: 0.5}
  - {code: high, name: much, severity: 1}
contract: {kind: image, shape: [12, 12], channels: 1, place: squeeze, scale: unit}
network: Tiny
arguments: {dimensions: 2, norm: true}
training: {epochs: 1, batch: 4}
map: {bright: high}
"""


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(model, "ALLOWED", set())
    with registered():
        yield


def trained(study: str, data: Path, out: Path, *more: str) -> Path:
    asked = arguments(IMAGE, data, out, *more)
    asked[1] = study
    assert train.main(asked) == 0
    return weights_of(out)


def scored(weights: Path, data: Path, out: Path, *more: str) -> dict:
    asked = [str(weights), "--data", str(data), "--out", str(out), "--cache", str(out.parent / "cache")]
    assert evaluate.main([*asked, "--workers", "0", "--rounds", "5", "--device", "cpu", *more]) == 0
    return json.loads((out / "metrics.json").read_text())


def said(weights: Path, scan: Path, capsys) -> dict:
    capsys.readouterr()
    diagnose.main([str(scan), "--weights", str(weights), "--json", "--judge-anyway"])
    return json.loads(capsys.readouterr().out)[0]


def test_a_study_from_a_file(tmp_path, capsys):
    (tmp_path / "levels.yaml").write_text(FILE)
    named = str(tmp_path / "levels.yaml")
    data = cohort(tmp_path / "data", study_of(named))
    (data / "high").rename(data / "Bright")
    assert datasets.main(["check", str(data), "--study", named]) == 0
    weights = trained(named, data, tmp_path / "run")
    (tmp_path / "levels.yaml").unlink()  # the trained file needs it no more
    header = model.read_header(weights)
    assert weights.name == "levels.Tiny.run.safetensors" and header.study.codes == ["low", "mid", "high"]
    assert header.training["command"].startswith("python train.py --study levels.yaml")
    split = ["--split", str(tmp_path / "run" / "split.csv")]
    assert scored(weights, data, tmp_path / "out", *split)["subjects"] == 3
    assert "bright means high" in (tmp_path / "out" / "card.md").read_text()
    answer = said(weights, next(data.rglob("*.png")), capsys)
    assert answer["study"] == "levels" and set(answer["probabilities"]) == {"low", "mid", "high"}
    assert train.main(["--resume", str(tmp_path / "run"), "--epochs", "2"]) == 0  # nor does going on


def test_two_classes_of_a_study(tmp_path, capsys):
    data = cohort(tmp_path / "data", IMAGE)
    weights = trained(IMAGE.key, data, tmp_path / "run", "--classes", "high,low", "--epochs", "1")
    header = model.read_header(weights)
    assert header.study.codes == ["high", "low"] and header.training["counts"]["scans"] == 12
    assert "Left out: mid" in header.card
    answer = said(weights, next(data.rglob("*.png")), capsys)
    assert set(answer["probabilities"]) == {"high", "low"}
    assert train.main([*arguments(IMAGE, data, tmp_path / "no"), "--classes", "high,odd"]) == 1
    assert "--classes high,odd: name two or more of low, mid, high" in capsys.readouterr().err


@pytest.fixture(scope="module")
def ages(tmp_path_factory) -> tuple[Path, Path]:
    """Weights that tell ages from brightness, and the table of the people they learned from."""
    folder, random = tmp_path_factory.mktemp("ages"), np.random.default_rng(3)
    with (folder / "people.csv").open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["Path", "Age", "Patient ID", "Sex"])
        for n in range(80):
            age = 40 + 40 * random.random()
            put(folder / f"{n}.png", picture(IMAGE, (age - 40) / 40, random))
            rows.writerow([f"{n}.png", f"{age:.1f}", f"p{n}", "FM"[n % 2]])
    more = ["--target", "age", "--epochs", "12", "--lr", "0.02", "--augment", "none", "--dropout", "0"]
    with registered():
        weights = trained(IMAGE.key, folder / "people.csv", folder / "run", *more, "--select", "mae")
    return weights, folder / "people.csv"


def test_an_age_is_learned_and_scored(ages, tmp_path, capsys):
    weights, table = ages
    header = model.read_header(weights)
    metrics = header.metrics
    assert header.study.target.unit == "years" and 55 < header.study.target.mean < 65
    assert metrics["mae"]["value"] < 6 and metrics["pearson"]["value"] > 0.8  # by guessing it would be 10 years
    assert {"rmse", "r2", "bias", "coverage", "interval_width"} <= set(metrics)
    assert "| Mean absolute error |" in header.card and "Number: age: age (years)" in header.card
    assert {path.name for path in weights.parent.glob("*.svg")} == {"agreement.svg"}
    split = ["--split", str(weights.parent / "split.csv")]
    found = scored(weights, table, tmp_path / "out", *split, "--by", "sex", "--against", str(weights))
    assert found["metrics"]["mae"]["value"] == pytest.approx(metrics["mae"]["value"], abs=1e-3)
    assert set(found["groups"]["sex"]) == {"F", "M"} and "fewer than 20 people" in capsys.readouterr().out
    compared = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert compared["differences"]["mae"]["value"] == 0


def test_an_age_is_answered_with_its_interval_everywhere(ages, tmp_path, capsys):
    weights, table = ages
    scan = table.parent / "0.png"
    truth = float(next(csv.DictReader(table.read_text().splitlines()))["Age"])
    answer = said(weights, scan, capsys)
    low, high = answer["interval"]
    width = sorted(model.read_header(weights).conformal_scores)
    assert answer["label"] == "age" and answer["probabilities"] is None and low < answer["value"] < high
    assert abs(answer["value"] - truth) < 15
    assert high - answer["value"] == pytest.approx(width[int(np.ceil((len(width) + 1) * 0.9)) - 1], abs=1e-4)
    diagnose.main([str(scan), "--weights", str(weights), "--judge-anyway"])
    assert "Age (years): " in (line := capsys.readouterr().out) and "(90 % coverage" in line
    diagnoser = Diagnoser(weights, "cpu")
    assert "an interval of its own" in diagnoser.why_no_uncertainty
    diagnosis = diagnoser(scan, judge_anyway=True)
    state = ServerState(weights.parent, Uploads(tmp_path / "uploads", 1 << 20), Pool(1, 1), "cpu")
    try:
        asked = Asked(weights.name, anyway=True)
        (result,) = results(state.enter(), Job(), Upload(scan, scan.name, ours=False), asked)
    finally:
        state.close()
    for language, unit, heading in (("en", "years", "Prediction interval"), ("zh", "岁", "预测区间")):
        t = Texts(language)
        shown = f"{answer['value']:.3g} {unit}"
        view = result_view(t, result, diagnoser)
        page = templates().load("result.html").generate(t=t, language=language, back=False, **view).decode()
        assert shown in page and heading in page and table_row(t, result, diagnoser)["shown"] == shown
        report = html(diagnosis, diagnoser.explain(diagnosis), language)
        assert shown in report and heading in report
    assert (
        diagnose.main([str(scan), "--weights", str(weights), "--judge-anyway", "--csv", str(tmp_path / "a.csv")])
        == 0
    )
    (row,) = csv.DictReader((tmp_path / "a.csv").read_text().splitlines())
    assert float(row["age"]) == pytest.approx(answer["value"], abs=1e-4) and row["label"] == "age"


OWN = """
from tests.tiny_cohorts import Tiny


class Mine(Tiny):
    pass


nothing = 3
"""


def test_a_network_of_one_s_own_runs_only_where_it_is_allowed(tmp_path, capsys, monkeypatch):
    (tmp_path / "own_networks.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    name, data = "own_networks:Mine", cohort(tmp_path / "data", VOLUME)
    asked = arguments(VOLUME, data, tmp_path / "run", "--epochs", "1", "--network", name)
    (tmp_path / "own.json").write_text(json.dumps({"like": VOLUME.key, "classes": [
        {"code": code} for code in VOLUME.codes], "network": name, "arguments": {"dimensions": 3}}))  # fmt: skip
    asked[1] = str(tmp_path / "own.json")
    assert train.main(asked) == 0
    weights, scan = weights_of(tmp_path / "run"), next(data.rglob("*.nii"))
    assert model.read_header(weights).network == name
    monkeypatch.setattr(model, "ALLOWED", set())  # as in another process
    assert diagnose.main([str(scan), "--weights", str(weights)]) == 2
    told = capsys.readouterr().err
    assert "is code of its own, which no file may start" in told and f"--allow-network {name}" in told
    diagnose.main([str(scan), "--weights", str(weights), "--judge-anyway", "--allow-network", name])
    assert "own.own_networks-Mine" in weights.name and "cannot" not in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "own_networks")
    (tmp_path / "own_networks.py").unlink()
    with pytest.raises(model.WeightsError, match="needs the module own_networks, which is not installed here"):
        model.load(weights)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("own networks:Mine", "write it as package.module:Class"),
        ("os:system", "os has no class system that stands on networks.base.Network"),
        ("tests.tiny_cohorts:VOLUME", "has no class VOLUME"),
        ("no_such_package.networks:Mine", "needs the module no_such_package, which is not installed here"),
    ],
)
def test_what_is_no_network_is_refused(tmp_path, capsys, name, words):
    data = cohort(tmp_path / "data", VOLUME, each=2)
    assert train.main(arguments(VOLUME, data, tmp_path / "run", "--network", name)) == 1
    assert words in capsys.readouterr().err and not (tmp_path / "run").exists()
