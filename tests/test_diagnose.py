"""The command line for one scan, a handful or a folder."""

import csv
import json
import re
import subprocess
from io import BytesIO

import nibabel as nib
import numpy as np
import pydicom
import pytest

import diagnose
import model
from diagnosis.anatomy.measures import MEASURES
from diagnosis.diagnoser import Diagnoser
from networks.header import Header
from studies import NOTICE, STUDIES
from tests import dicom_study, small_scans
from tests.heads import dicom_slices, head, save, to_bytes, zipped


@pytest.fixture
def run(capsys):
    """The command line: its exit status and what it printed."""

    def to_its_end(*arguments):
        words = list(map(str, arguments))
        try:
            code = diagnose.main(words)
        except SystemExit as ended:
            code = ended.code
        return subprocess.CompletedProcess(words, code, *capsys.readouterr())

    return to_its_end


def test_a_network_that_drops_nothing_says_so(run, tmp_path):
    study = STUDIES["brain-tumour"]
    path = model.save(
        tmp_path / "brain-tumour.resnet18.safetensors",
        model.NETWORKS["resnet18"](2),
        Header(study, "resnet18"),
    )
    diagnoser = Diagnoser(path, "cpu")
    with pytest.raises(model.WeightsError, match=r"resnet18\.safetensors: ResNet18 has no dropout"):
        diagnoser(b"", "x.png", passes=20)
    done = run(path, "--weights", path, "--uncertainty")
    assert done.returncode == 2 and "has no dropout" in done.stderr and "without uncertainty" in done.stderr


def test_the_command_line_prints_one_array_in_the_order_given(run, calibrated, ball, tmp_path):
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"not a scan at all")
    done = run(bad, ball, tmp_path / "absent.nii", "--weights", calibrated, "--json", "--judge-anyway")
    records = json.loads(done.stdout)
    assert [record["file"] for record in records] == ["bad.nii.gz", "head.nii.gz", "absent.nii"]
    assert records[2]["error"]["code"] == "missing" and "absent.nii" in records[2]["error"]["message"]
    assert set(records[0]["error"]) == {"code", "message"}
    assert records[1]["label"] in STUDIES["alzheimers"].codes
    assert done.returncode == 1


def test_the_command_line_says_all_was_judged(run, calibrated, ball):
    done = run(ball, "--weights", calibrated, "--judge-anyway")
    assert done.returncode == 0, done.stderr
    assert "head.nii.gz" in done.stdout and NOTICE in done.stdout
    assert re.search(r"[A-Z]+( or [A-Z]+)* \(90 % coverage on the calibration cohort\)", done.stdout)
    assert not re.search(r"\d–\d", done.stdout)


def test_the_command_line_tells_an_interval_where_it_is_asked_to(run, calibrated, ball):
    done = run(ball, "--weights", calibrated, "--judge-anyway", "--uncertainty")
    assert re.search(r"\d % \(\d+\.\d–\d+\.\d %\)", done.stdout)


def test_the_command_line_walks_a_folder_into_a_csv(run, calibrated, ball, tmp_path):
    done = run(
        ball.parent, "--weights", calibrated, "--csv", tmp_path / "out.csv", "--judge-anyway", "--uncertainty"
    )
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()))
    assert done.returncode == 0, done.stderr
    assert [row["file"] for row in rows] == ["head.nii.gz"]
    assert sum(float(rows[0][code]) for code in STUDIES["alzheimers"].codes) == pytest.approx(1, abs=1e-4)
    assert all(
        float(rows[0][f"{code} low"]) < float(rows[0][f"{code} high"]) for code in STUDIES["alzheimers"].codes
    )


def test_the_command_line_files_a_report_of_each_scan(run, calibrated, ball, tmp_path):
    bad, again = tmp_path / "bad.nii", tmp_path / "again" / "head.nii.gz"
    bad.write_bytes(b"not a scan at all")
    again.parent.mkdir()
    again.write_bytes(ball.read_bytes())
    done = run(
        ball,
        bad,
        again,
        "--weights",
        calibrated,
        "--judge-anyway",
        "--json",
        "--language",
        "zh",
        "--report",
        tmp_path / "reports" / "here",
    )
    assert done.returncode == 1, done.stderr  # one file was refused
    first, refused, second = json.loads(done.stdout)
    names = sorted(path.name for path in (tmp_path / "reports" / "here").iterdir())
    assert names == sorted(first["report"] + second["report"]) and len(names) == 8 and "report" not in refused
    assert first["report"] == [f"head.nii.gz{suffix}" for suffix in (".html", ".pdf", ".json", ".png")]
    told = json.loads((tmp_path / "reports" / "here" / "head.nii.gz.json").read_text(encoding="utf-8"))
    assert told["label"] == first["label"] == told["map"]["code"] and told["map"]["method"] == "grad-cam"
    page = (tmp_path / "reports" / "here" / second["report"][0]).read_text(encoding="utf-8")
    assert '<html lang="zh-CN">' in page and str(tmp_path) not in page


def test_a_scan_without_a_class_gets_a_report_that_says_so(run, calibrated, ball, tmp_path):
    marble = tmp_path / "marble.nii"  # the same, too small for a head
    nib.save(nib.Nifti1Image(np.asarray(nib.load(ball).dataobj), np.eye(4) / 4), marble)
    done = run(marble, "--weights", calibrated, "--report", tmp_path)
    assert done.returncode == 1 and "report: marble.nii.html" in done.stdout
    assert "This scan cannot be judged" in (tmp_path / "marble.nii.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "marble.nii.json").read_text(encoding="utf-8"))["map"] is None


def test_a_report_is_not_written_over_a_file(run, calibrated, ball, tmp_path):
    (tmp_path / "taken").write_text("mine")
    done = run(ball, "--weights", calibrated, "--report", tmp_path / "taken")
    assert done.returncode == 2 and "taken: a file of that name is there" in done.stderr
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "SCAN"),
        (["x.nii", "--level", "2"], "--level 2.0"),
        (["x.nii", "--weights", "nowhere.safetensors"], "nowhere.safetensors: no such weights file"),
        (["x.nii", "--study", "astrology"], "astrology"),
        (["x.nii", "--json", "--csv", "y.csv"], "not allowed with"),
        (["x.nii", "--device", "cpu", "--precision", "fp16"], "precision fp16 is for CUDA; use --precision fp32"),
    ],
)
def test_a_wrong_command_line_ends_with_two(run, arguments, words):
    done = run(*arguments)
    assert done.returncode == 2 and words in done.stderr and not done.stdout


def test_an_empty_folder_is_said_to_be_empty(run, calibrated, tmp_path):
    done = run(tmp_path, "--weights", calibrated)
    assert done.returncode == 2 and "nothing to judge" in done.stderr and ".nii.gz" in done.stderr


def test_measures_are_printed_tabled_and_written_as_label_maps(measuring_folder, head_file, tmp_path, capsys):
    weights = ["--weights", str(next(measuring_folder.glob("alz*"))), "--device", "cpu"]
    assert diagnose.main([str(head_file), *weights, "--labels", str(tmp_path / "maps")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"Ventricles \d+\.\d ml \(\d+\.\d\d % of the volume inside the skull\); hippocampi", out)
    assert "label map: head_labels.nii.gz" in out and (tmp_path / "maps" / "head_labels.nii.gz").is_file()
    bad = tmp_path / "bad.nii"
    bad.write_bytes(b"not a scan at all")
    assert diagnose.main([str(bad), str(head_file), *weights, "--csv", str(tmp_path / "x.csv")]) == 1
    refused, row = csv.DictReader((tmp_path / "x.csv").read_text(encoding="utf-8").splitlines())
    assert set(MEASURES) <= set(row) and not refused["brain"]
    assert float(row["brain"]) + float(row["ventricles"]) == pytest.approx(float(row["intracranial"]), rel=1e-3)


def test_label_maps_without_a_segmenter_are_refused_with_the_remedy(calibrated, head_file, tmp_path, capsys):
    wishes = ["--weights", str(calibrated), "--labels", str(tmp_path)]
    assert diagnose.main([str(head_file), *wishes]) == 2
    assert "nothing outlines scans here; name a --segmenter" in capsys.readouterr().err
    assert diagnose.main([str(head_file), "--segmenter", str(tmp_path / "no.safetensors")]) == 2
    assert "no.safetensors: no such weights file" in capsys.readouterr().err


def test_results_go_back_as_dicom_where_the_scan_came_as_dicom(run, calibrated, ball, tmp_path):
    series = tmp_path / "series.zip"
    images = dicom_study.instances()
    series.write_bytes(dicom_study.packed(images))
    done = run(
        series, ball, "--weights", calibrated, "--judge-anyway", "--dicom", tmp_path / "out", "--json",
        "--segmenter", "none",
    )  # fmt: skip
    told, refused = json.loads(done.stdout)
    assert told["dicom"] == [f"series.zip.{kind}.dcm" for kind in ("report", "pdf", "picture", "map")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(told["dicom"])
    for name in told["dicom"]:
        assert pydicom.dcmread(tmp_path / "out" / name).StudyInstanceUID == images[0].StudyInstanceUID
    assert refused["error"]["code"] == "no-study" and "no DICOM file" in refused["error"]["message"]
    assert done.returncode == 1
    clean = done.stdout + done.stderr
    assert dicom_study.NUMBER not in clean and "Müller" not in clean


def test_a_folder_of_slices_is_one_scan_and_any_series_can_be_asked_for(calibrated, tmp_path, capsys):
    voxels, affine = head((8.0, 8.0, 8.0))
    person = tmp_path / "anna" / "DICOM"
    person.mkdir(parents=True)
    for number, description in ((3, "t2_tse"), (7, "t1_mprage")):
        for place, file in enumerate(dicom_slices(voxels, affine, number)):
            data = pydicom.dcmread(BytesIO(file))
            data.SeriesDescription = description
            data.Manufacturer = "SIEMENS"
            (person / f"{number}.{place}").write_bytes(to_bytes(data))
    save(tmp_path / "other.nii.gz", voxels, affine)
    assert diagnose.collect([tmp_path]) == [tmp_path / "anna" / "DICOM", tmp_path / "other.nii.gz"]
    assert diagnose.collect([tmp_path], volumes=False) == [tmp_path / "other.nii.gz"]
    for asked, key in (([], "7"), (["--series", "3"], "3")):
        wishes = ["--weights", str(calibrated), "--segmenter", "none", "--judge-anyway", *asked]
        assert diagnose.main([str(person), "--json", *wishes]) == 0
        (record,) = json.loads(capsys.readouterr().out)
        assert record["file"] == "DICOM" and record["acquisition"]["maker"] == "Siemens"
        assert [(one["key"], one["chosen"]) for one in record["series"]] == [("3", key == "3"), ("7", key == "7")]
    assert diagnose.main([str(person), "--weights", str(calibrated), "--series", "4"]) == 1
    assert "no series 4 in it (3: 30 images 29×24 MR T2; 7:" in capsys.readouterr().out


def test_an_age_gives_centiles_among_the_norms_beside_the_weights(measuring_folder, head_file, capsys):
    weights = ["--weights", str(next(measuring_folder.glob("alz*"))), "--device", "cpu"]
    assert diagnose.main([str(head_file), *weights, "--age", "70", "--sex", "f", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["person"] == {"age": 70, "sex": "F"} and record["measures"]["ventricles"]["centile"] is not None
    assert diagnose.main([str(head_file), *weights, "--age", "70"]) == 0
    assert re.search(r"at 70 years \(both sexes\).* 120 controls of 50 to 85 years", capsys.readouterr().out, re.S)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--age", "seventy"], "age 'seventy': give it in years"),
        (["--sex", "x"], "sex 'x': give F or M"),
        (["--norms", "absent.json"], "absent.json: no such file; make one with `python norms.py`"),
        (["another.nii", "--age", "70"], "--age and --sex are one person's, and these are 2 scans"),
    ],
)
def test_what_cannot_be_true_of_a_person_is_refused(run, measuring_folder, head_file, words, said):
    done = run(head_file, *words, "--weights", next(measuring_folder.glob("alz*")), "--device", "cpu")
    assert done.returncode == 2 and said in done.stderr


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_scans.weights(tmp_path_factory.mktemp("small"))


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_of_several_people_in_a_folder_each_has_an_answer(small, tmp_path, capsys, form):
    folder = tmp_path / "export"
    dicom_study.mixed(folder)
    given = folder
    if form == "zip":
        given = tmp_path / "export.zip"
        given.write_bytes(zipped({path.name: path.read_bytes() for path in folder.iterdir()}))
    wishes = ["--weights", str(small), "--judge-anyway", "--json"]
    assert diagnose.main([str(given), *wishes]) == 0
    first, second = json.loads(capsys.readouterr().out)
    ending = given.suffix
    assert [first["file"], second["file"]] == [f"export (series 4){ending}", f"export (series 4-2){ending}"]
    listed = [(one["key"], one["person"], one["study"]) for one in first["series"]]
    assert listed == [("4", 1, 1), ("4-2", 2, 2), ("6", 3, 3)]
    assert [one["key"] for row in (first, second) for one in row["series"] if one["chosen"]] == ["4", "4-2"]
    assert diagnose.main([str(given), *wishes, "--series", "4-2"]) == 0
    (alone,) = json.loads(capsys.readouterr().out)
    assert alone["probabilities"] == second["probabilities"] and alone["file"] == given.name
    assert diagnose.main([str(given), *wishes, "--age", "71"]) == 0  # an age is one person's
    assert len(json.loads(capsys.readouterr().out)) == 1
