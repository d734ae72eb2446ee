"""What the templates are given: numbers as the report writes them, and a refusal in the visitor's words."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from reports.wording import Texts
from server.page.views import refusal_view, result_view, table_row
from server.state import Result, Upload
from tests.diagnoses import CHANCES


@pytest.fixture
def diagnoser(diagnosis):
    return SimpleNamespace(weights=diagnosis.weights, study=diagnosis.weights.study, why_no_uncertainty=None)


def result_of(diagnosis, **changes) -> Result:
    return Result("r", Upload(Path("x"), "head.nii.gz"), "w", diagnosis.record() | changes, diagnosis.findings)


def test_bars_run_from_least_to_most_severe(diagnosis, diagnoser):
    view = result_view(Texts("en"), result_of(diagnosis), diagnoser)
    assert [bar.code for bar in view["bars"]] == ["CN", "EMCI", "MCI", "LMCI", "AD"]
    assert [bar.shown for bar in view["bars"]] == ["15.0 %", "5.0 %", "5.0 %", "20.0 %", "55.0 %"]
    assert [bar.code for bar in view["answers"]] == ["AD", "LMCI"] and view["name"] == "Alzheimer's disease"
    assert view["promise"] == "(90 % coverage on the calibration cohort)" and "10 %" in view["set_note"]


def test_without_a_class_there_are_no_bars(diagnosis, diagnoser):
    unfit = result_of(diagnosis, label=None, probabilities=None, set=None, severity=None)
    assert result_view(Texts("en"), unfit, diagnoser)["bars"] == []
    assert table_row(Texts("en"), unfit, diagnoser)["chance"] is None


def test_a_row_is_never_surer_than_its_answer(diagnosis, diagnoser):
    sure = result_of(diagnosis, probabilities=CHANCES | {"AD": 0.99999})
    assert table_row(Texts("en"), sure, diagnoser)["shown"] == "> 99.9 %"


def refused(record):
    return Result("r", Upload(Path("x"), record["file"]), "w", record)


def test_a_refusal_is_told_in_the_readers_words_or_with_a_remedy():
    record = {"file": "x.nii", "error": {"code": "empty", "message": "x.nii: empty; copy it again"}}
    assert refusal_view(Texts("en"), refused(record))["words"] == "Empty; copy it again"
    chinese = refusal_view(Texts("zh"), refused(record))
    assert chinese["detail"] == "Empty; copy it again" and chinese["words"] == Texts("zh")("remedy.empty")
    odd = {"file": "x.nii", "error": {"code": "never-heard-of", "message": ""}}
    assert refusal_view(Texts("en"), refused(odd))["words"] == Texts("en")("remedy.other")
