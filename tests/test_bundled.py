"""The bundled weights: the example gets its true class, the page shows it whole, the name is honest."""

from pathlib import Path

import numpy as np
import pytest

import model
import simulate
from diagnosis.diagnoser import Diagnoser
from reports import wording
from simulation.phantom import STRUCTURES, structures
from tests.browser import result_of, visiting
from tests.support import ROOT, running

WEIGHTS = ROOT / "weights" / "alzheimers.ClassificationModel3D.safetensors"
DEMOS = {"demo.nii.gz": "AD", "demo-cn.nii.gz": "CN"}  # what they were made as, see demodata/README.md


@pytest.fixture(scope="module")
def answers():
    diagnoser = Diagnoser(WEIGHTS, "cpu")
    return {name: diagnoser(ROOT / "demodata" / name).record() for name in DEMOS}


@pytest.mark.parametrize("name", DEMOS)
def test_the_example_scans_are_fit_and_get_their_true_class(answers, name):
    assert answers[name]["gate"]["verdict"] == "fit", answers[name]["gate"]
    assert answers[name]["label"] == DEMOS[name]
    assert DEMOS[name] in answers[name]["set"]


@pytest.mark.parametrize("name", DEMOS)
def test_the_example_scans_are_measured_as_they_were_simulated(answers, name):
    code, seed = simulate.DEMOS[name.removesuffix(".nii.gz")]
    shown = structures(simulate.demo(code, seed))
    litres = 1e-3  # ml a voxel of 1 mm
    ventricles = ("lateral", "inferior_horn", "third", "fourth")
    true = {
        "ventricles": litres * np.isin(shown, [STRUCTURES.index(part) for part in ventricles]).sum(),
        "cerebellum": litres * (shown == STRUCTURES.index("cerebellum")).sum(),
    }
    for measure, ml in true.items():
        assert answers[name]["measures"][measure]["value"] == pytest.approx(ml, rel=0.25), measure


def test_the_worked_example_replays(answers):
    example = model.read_header(WEIGHTS).example
    replayed = answers[Path(example["file"]).name]["probabilities"]
    assert replayed == pytest.approx(example["probabilities"], abs=0.01)


def test_the_name_says_what_they_learned_from():
    header = model.read_header(WEIGHTS)
    assert "simulated" in header.title and "not trained on patients" in header.title
    assert header.title in header.card
    for language in wording.languages():  # and in the reader's own words
        assert language == "en" or wording.Texts(language).has(f"weights.{header.title}")
    assert header.metrics["severity_correlation"]["low"] is not None


def test_the_page_shows_the_example_with_its_map_its_measures_and_its_files(browser, tmp_path: Path):
    """By the server as `make run` starts it, in Chinese, which takes every word from its table."""
    t, contract = wording.Texts("zh"), model.read_header(WEIGHTS).study.contract
    with running(tmp_path) as server, visiting(browser, server) as visit:
        page = visit(maps=True, locale="zh")
        page.click("#example")
        result_of(page)
        assert page.inner_text("#answer .code") == DEMOS["demo.nii.gz"]
        assert t(f"scale.{contract.scale}") in page.locator(".details").all_text_contents()[0]
        page.wait_for_selector("#viewer[data-map]")
        assert page.locator("#measures tbody tr").count() > 5
        links = page.locator("a[download]").evaluate_all("links => links.map((link) => link.href)")
        assert len(links) >= 4
        for link in links:
            fetched = page.request.get(link)
            assert fetched.ok and fetched.body(), link
