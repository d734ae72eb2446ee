"""The command line for a cohort: one row a scan, whatever happens on the way."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections import Counter

import fsspec
import pyarrow.parquet
import pytest

import cohort
from diagnosis.diagnoser import Diagnoser
from tests import dicom_study, small_scans
from tests.support import ROOT


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return small_scans.weights(tmp_path_factory.mktemp("small"))


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data", small_scans.dataset(tmp_path / "data")


def run(*arguments):
    return cohort.main([str(part) for part in (*arguments, "--device", "cpu")])


def dying(row, *arguments):
    """The command as a process of its own that is killed in the middle of a row's line."""
    return subprocess.run(
        [sys.executable, "-m", "tests.small_scans", *map(str, arguments), "--device", "cpu"],
        cwd=ROOT,
        env=os.environ | {"DIE_AT": str(row)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def rows(path):
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    text = path.read_text(encoding="utf-8")
    return (
        list(csv.DictReader(text.splitlines()))
        if path.suffix == ".csv"
        else list(map(json.loads, text.splitlines()))
    )


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_every_scan_has_the_answer_that_it_has_alone(data, weights, tmp_path, capsys, suffix):
    folder, files = data
    out = tmp_path / f"answers{suffix}"
    assert run(folder, "--out", out, "--weights", weights) == 0
    found = {row["file"]: row for row in rows(out)}
    assert sorted(found) == files
    judge = Diagnoser(weights, "cpu")
    for file in files[:3]:
        alone, row = judge(folder / file), found[file]
        chance = float(row["AD"]) if suffix != ".jsonl" else row["probabilities"]["AD"]
        assert row["label"] == alone.label and chance == pytest.approx(alone.probabilities["AD"], abs=1e-6)
        assert (row["entities"] if suffix == ".jsonl" else row)["ses"] == "ab"[files.index(file) % 2]
    told = capsys.readouterr().out
    assert "8 scans judged, 0 were there" in told and "1 refused" in told and small_scans.BAD in told
    assert run(folder, "--out", out, "--weights", weights) == 0
    assert "0 scans judged, 8 were there" in capsys.readouterr().out


def test_killed_again_and_again_it_ends_with_one_row_a_scan(data, weights, tmp_path):
    folder, files = data
    command = (folder, "--out", tmp_path / "answers.csv", "--weights", weights)
    for row in (3, 2):
        done = dying(row, *command)
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert run(*command) == 0
    assert Counter(row["file"] for row in rows(command[2])) == Counter(files)
    assert {path.name for path in tmp_path.iterdir()} == {"data", "answers.csv"}


def test_refused_files_are_tried_again_on_request_and_changed_ones_anyway(data, weights, tmp_path, capsys):
    folder, files = data
    out = tmp_path / "answers.csv"
    run(folder, "--out", out, "--weights", weights)
    (folder / files[0]).write_bytes((folder / files[1]).read_bytes())
    capsys.readouterr()
    assert run(folder, "--out", out, "--weights", weights) == 0
    assert "1 scans judged, 7 were there" in capsys.readouterr().out
    assert run(folder, "--out", out, "--weights", weights, "--retry") == 0
    assert "1 scans judged, 7 were there" in capsys.readouterr().out
    (folder / small_scans.BAD).write_bytes((folder / files[1]).read_bytes())
    assert run(folder, "--out", out, "--weights", weights) == 0
    found = {row["file"]: row for row in rows(out)}
    assert len(found) == len(rows(out)) == 8
    assert found[files[0]]["AD"] == found[files[1]]["AD"] == found[small_scans.BAD]["AD"] != ""


def test_ctrl_c_leaves_whole_rows_and_says_so(data, weights, tmp_path, monkeypatch, capsys):
    folder, files = data
    append, left = cohort.Results.append, [3]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it

    def stopped(self, record):
        append(self, record)
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(cohort.Results, "append", stopped)
    out = tmp_path / "answers.csv"
    assert run(folder, "--out", out, "--weights", weights) == 130
    assert len(rows(out)) == 3 and "the same command goes on" in capsys.readouterr().err
    monkeypatch.undo()
    signal.signal(signal.SIGINT, before)
    assert run(folder, "--out", out, "--weights", weights) == 0 and len(rows(out)) == len(files)


def test_shards_are_judged_apart_and_merged(data, weights, tmp_path, capsys):
    folder, files = data
    out = tmp_path / "answers.csv"
    for number in (1, 2, 3):
        assert run(folder, "--out", out, "--weights", weights, "--shard", f"{number}/3") == 0
    parts = sorted(tmp_path.glob("answers.shard-*-of-3.csv"))
    assert cohort.main(["merge", *map(str, parts), "--out", str(out)]) == 0
    assert sorted(row["file"] for row in rows(out)) == files
    assert "8 rows" in capsys.readouterr().out
    assert cohort.main(["merge", str(parts[0]), "--out", str(out)]) == 2
    assert "no shard 2, 3 of 3" in capsys.readouterr().err


def test_as_a_bids_app_it_writes_derivatives_and_the_table_of_the_group(data, weights, tmp_path, capsys):
    folder, files = data
    out = tmp_path / "derivatives"
    app = (folder, out, "participant", "--weights", weights)
    assert run(*app, "--participant-label", "02", "sub-03", "--maps") == 0
    names = {path.relative_to(out).as_posix() for path in out.rglob("sub-*/**/*.*")}
    stem = "sub-02/ses-a/anat/sub-02_ses-a_run-1_desc-scanwise"
    assert {f"{stem}_T1w.json", f"{stem}_heatmap.nii.gz"} <= names and not any("sub-00" in name for name in names)
    capsys.readouterr()
    assert run(*app) == 0 and "4 scans judged, 4 were there" in capsys.readouterr().out
    assert run(folder, out, "group") == 0
    lines = (out / "phenotype" / "scanwise.tsv").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[2] for line in lines[1:]] == files
    assert json.loads((out / "dataset_description.json").read_text())["DatasetType"] == "derivative"
    assert run(folder / "sub-00", out, "participant", "--weights", weights) == 2
    assert "no BIDS dataset" in capsys.readouterr().err


def test_scans_of_a_store_are_judged_where_they_are(data, weights, tmp_path):
    folder, files = data
    store = fsspec.filesystem("memory")
    for file in files[:2]:
        store.pipe_file(f"/scans/{file}", (folder / file).read_bytes())
    out = tmp_path / "answers.jsonl"
    assert run("memory://scans", "--out", out, "--weights", weights) == 0
    assert run(f"file://{folder}/sub-00", "--out", tmp_path / "b.jsonl", "--weights", weights) == 0
    found, there = rows(out), rows(tmp_path / "b.jsonl")
    assert sorted(row["file"] for row in found) == files[:2]
    assert sorted((row["sha256"], row["label"]) for row in found) == sorted(
        (row["sha256"], row["label"]) for row in there
    )


def test_a_folder_of_slices_in_a_store_is_one_scan(weights, tmp_path):
    files = dicom_study.written(dicom_study.instances(8.0), tmp_path / "P1" / "t1")
    store = fsspec.filesystem("memory")
    for file in files:
        store.pipe_file(f"/archive/P1/t1/{file.name}.dcm", file.read_bytes())
    assert run("memory://archive", "--out", tmp_path / "a.jsonl", "--weights", weights) == 0
    assert run(tmp_path / "P1", "--out", tmp_path / "b.jsonl", "--weights", weights) == 0
    (found,), (wanted,) = rows(tmp_path / "a.jsonl"), rows(tmp_path / "b.jsonl")
    assert found["file"] == "P1/t1" and found["probabilities"] == wanted["probabilities"]
    assert run("memory://archive", "--out", tmp_path / "a.jsonl", "--weights", weights) == 0
    assert len(rows(tmp_path / "a.jsonl")) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "--out", "x.csv"], "nowhere: no such file or folder"),
        (["{data}", "--out", "{tmp}/x.txt"], "x.txt: results are written as .csv, .jsonl, .parquet"),
        (["{data}", "--out", "{tmp}/x.csv", "--weights", "none.safetensors"], "no such weights file"),
        (["{data}", "--out", "{tmp}/x.csv", "--labels", "{tmp}/l"], "nothing outlines scans here"),
        (["{data}/sub-00/ses-a", "--out", "{tmp}/y.csv", "--study", "astrology"], "astrology"),
        (["{tmp}/empty", "--out", "{tmp}/y.csv"], "nothing to judge"),
    ],
)
def test_a_wrong_command_is_refused_in_words(data, weights, tmp_path, capsys, arguments, words):
    (tmp_path / "empty").mkdir()
    given = [part.format(data=data[0], tmp=tmp_path) for part in arguments]
    more = [] if "--weights" in given or "--study" in given else ["--weights", weights]
    assert run(*given, *more) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x", "--out", "x.csv", "--shard", "4/3"], "such as 2/8"),
        (["x", "--out", "x.csv", "--level", "2"], "--level 2.0"),
        (["x"], "--out"),
        (["x", "y", "participant", "--out", "z.csv"], "as a BIDS App"),
        (["x", "y"], "participant or group"),
        (["x", "y", "group", "--shard", "1/2"], "--participant-label"),
        (["x", "--out", "x.csv", "--maps"], "--maps: name a folder"),
    ],
)
def test_a_wrong_option_ends_with_two(capsys, arguments, words):
    with pytest.raises(SystemExit) as ended:
        cohort.main(arguments)
    assert ended.value.code == 2 and words in capsys.readouterr().err


def test_slices_of_several_people_are_a_row_for_each_study(weights, tmp_path, capsys):
    """However they lie: among one another, or a person a folder with a series in each of its own."""
    folder, out = tmp_path / "export", tmp_path / "answers.jsonl"
    dicom_study.mixed(folder / "all")
    for number, image in enumerate(dicom_study.instances(8.0, PatientID="P4", SeriesDescription="t1_mprage")):
        dicom_study.written([image], folder / "P4" / f"S{number % 2}" / str(number))
    (folder / "P5").mkdir()
    (folder / "P5" / "broken.dcm").write_bytes(b"x" * 300)
    assert run(folder, "--out", out, "--weights", weights, "--judge-anyway") == 0
    found = {row["file"]: row for row in rows(out)}
    assert sorted(found) == ["P4", "P5", "all (series 4)", "all (series 4-2)"]
    assert found["P5"]["error"]["code"] == "no-image" and all(
        found[name]["label"] for name in found if "5" not in name
    )
    people = [
        [one["person"] for one in row["series"] if one["chosen"]] for row in map(found.get, sorted(found)[2:])
    ]
    assert sorted(people) == [[1], [2]]
    capsys.readouterr()
    assert run(folder, "--out", out, "--weights", weights, "--judge-anyway") == 0
    assert "0 scans judged, 4 were there" in capsys.readouterr().out
    changed = next((folder / "P4").rglob("*.dcm"))
    changed.write_bytes(changed.read_bytes() + b"\0\0")
    assert run(folder, "--out", out, "--weights", weights, "--judge-anyway") == 0
    assert "1 scans judged, 3 were there" in capsys.readouterr().out
