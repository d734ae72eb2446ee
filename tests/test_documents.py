"""The documents keep up with the code: files, commands, tests, versions and figures that they name."""

import contextlib
import io
import json
import re
import runpy
import shlex
import sys

import pytest
from safetensors import safe_open

from diagnosis.diagnoser import VERSION
from tests.support import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/*.conf"), *ROOT.glob("docs/*.sh")])
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
NOT_OURS = (
    "__init__.py",
    "adni/about.txt",
    "card.md",
    "checklist.md",
    "metrics.json",
    "split.csv",
    "about.txt",
    "answers.csv",
    "index.csv",
    "norms.json",
    "participants.tsv",
    "scan.nii.gz",
)
COMMANDS = sorted(
    {
        (page, command.rstrip("\\").strip())
        for page, text in TEXTS.items()
        for command in re.findall(
            r"(?:^    |`|, |: |srun )(python (?:-m benchmarks\.)?\w+(?:\.py)?[^`\n#]*)", text, re.M
        )
        if "venv" not in command
    }
)


def test_the_readme_is_one_page():
    assert len(TEXTS["README.md"].splitlines()) <= 170


@pytest.mark.parametrize("page", TEXTS)
def test_every_file_that_a_page_names_is_there(page):
    named = re.findall(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|md|txt|json|lock|cff|toml|html|js|css))[:`]", TEXTS[page])
    named += re.findall(r'(?:\]\(|src=")([\w./-]+)', TEXTS[page])
    folders = re.findall(r"`((?:\w+/)+)`", TEXTS[page])
    places = (ROOT, ROOT / "docs") if page.startswith("docs/") else (ROOT,)
    missing = [name for name in [*named, *folders] if not any((place / name).exists() for place in places)]
    theirs = ("adni/", "cohort/", "test/", "AD/", "CN/", "MCI/", "EMCI/", "LMCI/", "labels/", "t1/")
    assert [name for name in missing if name not in (*NOT_OURS, *theirs) and name[0] != "."] == []


@pytest.mark.parametrize("page", TEXTS)
def test_every_test_that_a_page_names_is_there(page):
    for file, name in re.findall(r"(tests/[\w/]+\.py)::(\w+)", TEXTS[page]):
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{name}"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pywebio leaves a file open
@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=lambda part: part if "python" in part else "")
def test_every_command_has_the_options_that_a_page_gives_it(monkeypatch, page, command):
    words = shlex.split(command.split(" or ")[0])
    name = words[2] if words[1] == "-m" else words[1].removesuffix(".py")
    rest = words[3 if words[1] == "-m" else 2 :]
    command_of = [rest[0]] if name in ("datasets", "model") else []
    monkeypatch.setattr(sys, "argv", [name, *command_of, "--help"])
    monkeypatch.delitem(sys.modules, name, raising=False)  # another test may have imported it
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as ended:
        runpy.run_module(name, run_name="__main__", alter_sys=False)
    assert ended.value.code == 0
    known = set(re.findall(r"--[\w-]+", out.getvalue()))
    assert {word.split("=")[0] for word in rest if word.startswith("--")} <= known


def test_one_version_stands_in_one_place():
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", TEXTS["CHANGELOG.md"], re.M)[0] == VERSION
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in project and "diagnosis.diagnoser.VERSION" in project
    described = json.loads((ROOT / "web" / "openapi.json").read_text(encoding="utf-8"))
    assert described["info"]["version"] == VERSION


FIGURES = {
    r"five-class accuracy, 490 held-out simulated subjects": ("accuracy", 2),
    r"the same, one step of severity off allowed": ("one_step_accuracy", 2),
    r"correlation of expected severity with the true class": ("severity_correlation", 2),
    r"90 % prediction sets hold the truth": ("coverage", 2),
    r"expected calibration error": ("ece", 3),
    r"expected calibration error, before and after temperature scaling": ("ece_unscaled", 3),
    r"AD against CN, ROC-AUC, 196 of them": ("two classes", 2),
}


@pytest.mark.parametrize("row", FIGURES)
def test_the_figures_of_the_bundled_weights_are_those_of_their_header(row):
    with safe_open(ROOT / "weights" / "alzheimers.ClassificationModel3D.safetensors", "pt") as weights:
        header = json.loads(weights.metadata()["scanwise"])
    name, digits = FIGURES[row]
    scores = header["scores"]
    if name in scores["metrics"]:
        score = scores["metrics"][name]
    else:
        score = scores["readings"][name]["metrics"]["roc_auc"]
    value, low, high = (f"{score[part]:.{digits}f}" for part in ("value", "low", "high"))
    lines = [line for text in TEXTS.values() for line in text.splitlines() if line.startswith(f"| {row} |")]
    assert lines and all(f"{value} ({low}–{high})" in line for line in lines), (value, low, high, lines)


def test_the_locks_hold_what_is_asked_for_by_hash():
    locks = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "locks").glob("*.txt")}
    assert set(locks) == {"run", "torch", "ray", "dev", "uv"}
    for text in locks.values():
        assert "://" not in text and "--index" not in text
        entries = re.findall(r"^[\w.-]+==.*\n(?:    .*\n)*", text, re.M)
        assert entries and all("--hash=sha256:" in entry for entry in entries)
    for asked, held in (
        ("requirements.txt", locks["run"] + locks["torch"]),
        ("requirements-ray.txt", locks["ray"] + locks["run"]),
        ("requirements-dev.txt", locks["dev"]),
    ):
        wanted = re.findall(r"^([\w-]+==[\w.]+)", (ROOT / asked).read_text(encoding="utf-8"), re.M)
        locked = set(re.findall(r"^([\w.-]+==[\w.]+)", held, re.M))
        assert [one for one in wanted if one not in locked] == [], "run `make lock`"


def test_every_package_of_the_locks_has_its_licence_told():
    packages = {
        name
        for path in (ROOT / "locks").glob("*.txt")
        for name in re.findall(r"^([\w.-]+)==", path.read_text(), re.M)
    }
    assert set(re.findall(r"^\| ([\w.-]+) \| .+ \|$", TEXTS["docs/licences.md"], re.M)) - {"package"} == packages
