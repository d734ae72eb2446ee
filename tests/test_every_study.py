"""Every network of every study from small data to an answer: trained, kept, listed, asked in all three ways."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

import diagnose
import model
import train
from reports.wording import Texts
from studies import STUDIES, Study
from tests.asking import post
from tests.browser import result_of, send
from tests.support import Server, running
from tests.tiny_cohorts import cohort, same, weights_of

PAIRS = [(study, network) for study in STUDIES.values() for network in study.networks]
NAMES = [f"{study.key}-{network}" for study, network in PAIRS]
SMALL = {"volume": ("78", "78", "78"), "image": ("32", "32")}  # the least that every network bears
Trained = Callable[[Study, str], Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Iterator[Trained]:
    """Trains a network of a study for one epoch, once; where its run is kept."""
    done: dict[tuple[str, str], Path] = {}
    folder = tmp_path_factory.mktemp("studies")

    def ask(study: Study, network: str) -> Path:
        key, data = (study.key, network), folder / f"{study.key}-data"
        if key not in done:
            if not data.is_dir():
                cohort(data, study, each=4)
            done[key] = folder / f"{study.key}-{network}"
            argv = [
                "--study",
                study.key,
                "--network",
                network,
                "--data",
                data,
                "--out",
                done[key],
                "--cache",
                folder / "cache",
                "--shape",
                *SMALL[study.contract.kind],
                "--epochs",
                "1",
                "--batch",
                "4",
                "--workers",
                "0",
                "--threads",
                "2",
                "--device",
                "cpu",
                "--rounds",
                "2",
                "--optimiser",
                "sgd",
                "--augment",
                "none",
            ]
            assert train.main([str(word) for word in argv]) == 0
        return done[key]

    yield ask
    shutil.rmtree(folder)  # gigabytes


def scan_of(run: Path) -> Path:
    """A case of the run's test part."""
    row = next(row for row in (run / "split.csv").read_text().splitlines() if row.endswith(",test"))
    return run.parent / f"{run.name.rpartition('-')[0]}-data" / row.split(",")[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory, trained: Trained) -> Iterator[Server]:
    """The app with all of them."""
    folder = tmp_path_factory.mktemp("gallery")
    for study, network in PAIRS:
        path = weights_of(trained(study, network))
        (folder / path.name).hardlink_to(path)
    with running(tmp_path_factory.mktemp("server"), "--weights", folder, "--workers", "1") as started:
        yield started
    shutil.rmtree(folder)


@pytest.mark.parametrize(("study", "network"), PAIRS, ids=NAMES)
def test_it_trains_evaluates_and_is_kept(trained: Trained, study: Study, network: str):
    run = trained(study, network)
    header = model.read_header(weights_of(run))
    assert header.network == network and header.study.key == study.key
    assert header.scores["subjects"] == len(study.labels)
    assert {
        "sensitivity." + study.codes[-1],
        "specificity." + study.codes[-1],
        "roc_auc",
        "accuracy",
        "kappa",
    } <= set(header.scores["metrics"])
    losses = json.loads((run / "losses.json").read_text())
    assert len(losses["epochs"]) == 1 and losses["settings"]["network"] == network
    assert list(losses["classes"].values()) == study.codes
    told = json.loads((run / "predictions.json").read_text())
    assert {one["label"] for one in told} == set(study.codes)
    assert all(sum(one["probabilities"].values()) == pytest.approx(1) for one in told)
    for name in ("curves.png", "roc.png"):  # losses and accuracies of both parts, and the ROC
        with Image.open(run / name) as drawn:
            assert drawn.size[0] > 300


@pytest.mark.parametrize(("study", "network"), PAIRS, ids=NAMES)
def test_the_file_holds_what_serving_needs_and_no_more(trained: Trained, study: Study, network: str):
    run = trained(study, network)
    weights = model.load(weights_of(run), "cpu")
    assert set(weights.extras) == {"features.mean", "features.precision", "likeness.sketch"}
    needed = sum(
        value.numel() * value.element_size()
        for value in [*weights.network.state_dict().values(), *weights.extras.values()]
    )
    assert weights_of(run).stat().st_size - needed < 200_000  # the header
    kept = torch.load(run / "last.pt", weights_only=True, mmap=True)["state"]  # of the last epoch and the best
    assert same(kept["best"], weights.network.state_dict())
    assert kept["network"].keys() == kept["best"].keys() and kept["epoch"] == kept["best_epoch"] == 1


@pytest.mark.parametrize(("study", "network"), PAIRS, ids=NAMES)
def test_the_command_line_and_the_api_say_the_same(
    trained: Trained, server: Server, study: Study, network: str, capsys
):
    run = trained(study, network)
    path, scan = weights_of(run), scan_of(run)
    assert diagnose.main([str(scan), "--weights", str(path), "--json", "--judge-anyway"]) == 0
    [said] = json.loads(capsys.readouterr().out)
    assert said["study"] == study.key and said["label"] in study.codes
    assert said["gate"]["judged_anyway"]
    status, _, [answer] = post(server, (scan.name, scan.read_bytes()), study=path.name, judge_anyway="true")
    assert status == 200
    assert answer["weights"] == said["weights"]
    assert answer["probabilities"] == pytest.approx(said["probabilities"], abs=1e-5)
    for shares in answer["shares"].values():
        assert sum(shares.values()) == pytest.approx(1)
    assert set(answer["shares"]) == ({"attention"} if network == "AttentionPyramid" else set())


def test_the_app_lists_them_all(server: Server):
    assert len(server.get("/studies")) == len(PAIRS)
    assert {one["study"]["key"] for one in server.get("/studies")} == set(STUDIES)


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_the_page_answers(trained: Trained, visit, study: Study):
    page, run = visit(maps=True), trained(study, study.network)
    page.select_option("select[data-do=choose]", weights_of(run).name)
    page.wait_for_function(
        "asked => document.querySelector('h1')?.innerText === asked",
        arg=Texts("en").question(study),
    )
    send(page, scan_of(run))
    result_of(page)
    if page.locator("[data-do=anyway]").count():
        page.click("[data-do=anyway]")
        page.wait_for_selector("#answer .code")
        result_of(page)
    assert page.inner_text("#answer .code") in study.codes
    page.wait_for_selector("#viewer[data-map]")
    assert ("Attention" in page.inner_text(".details")) == (study.network == "AttentionPyramid")
    assert page.locator(".pane canvas:visible").count() == (3 if study.contract.kind == "volume" else 1)
