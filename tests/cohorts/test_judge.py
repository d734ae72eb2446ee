"""What is done for each scan of a cohort."""

import hashlib
from dataclasses import replace

from cohorts import judge
from cohorts.inputs import Item
from cohorts.judge import Judge, Wanted, below, fetched
from reports import files
from scans.files import content_hash
from tests import dicom_study


def test_a_record_names_the_path_the_content_and_what_judged_it(diagnoser, bids):
    file = "sub-01/ses-b/anat/sub-01_ses-b_run-1_T1w.nii.gz"
    judged = Judge(diagnoser, Wanted(bids=True, level=0.8))
    record = judged(Item(file, str(bids / file)))
    alone = diagnoser(bids / file, level=0.8).record()
    assert record["sha256"] == hashlib.sha256((bids / file).read_bytes()).hexdigest()
    assert record["file"] == file and record["entities"] == {"sub": "01", "ses": "b", "run": "1"}
    assert {key: record[key] for key in ("label", "probabilities", "set", "gate", "weights", "level")} == {
        key: alone[key] for key in ("label", "probabilities", "set", "gate", "weights", "level")
    }
    assert judged(Item(file, str(bids / file)), record["sha256"]) is None
    assert judged(Item(file, str(bids / file)), "other")["label"] == record["label"]


def test_a_refused_scan_has_a_record_too(diagnoser, tmp_path):
    (tmp_path / "bad.nii").write_bytes(b"no scan")
    judged = Judge(diagnoser, Wanted())
    record = judged(Item("a/bad.nii", str(tmp_path / "bad.nii")))
    assert record["error"]["code"] and record["file"] == "a/bad.nii" and record["gate"]["verdict"] == "refused"
    assert record["sha256"] == hashlib.sha256(b"no scan").hexdigest() and "entities" not in record
    gone = judged(Item("gone.nii", str(tmp_path / "gone.nii")))
    assert (
        gone["error"]["code"] == "missing" and "No such file" in gone["error"]["message"] and gone["sha256"] == ""
    )
    assert judged(Item("gone.nii", str(tmp_path / "gone.nii")), "") is None


def test_the_content_of_a_folder_is_that_of_the_files_read_of_it(tmp_path):
    paths = dicom_study.written(dicom_study.instances(8.0)[:3], tmp_path / "study")
    study, item = tmp_path / "study", Item("study", str(tmp_path / "study"))
    before = fetched(item)[0]
    assert before == content_hash(study)
    for name in (
        "answers.csv",
        "answers.csv.part",
        ".answers.csv.lock",
        ".hidden/1.dcm",
        "x_map.nii.gz",
        "x.html",
    ):
        (study / name).parent.mkdir(exist_ok=True)
        (study / name).write_bytes(paths[0].read_bytes() if name.endswith("dcm") else b"ours")
    assert fetched(item)[0] == before
    paths[0].write_bytes(paths[0].read_bytes() + b"\0\0")
    assert fetched(item)[0] != before


def test_what_breaks_down_over_one_scan_is_told_in_its_record(diagnoser, bids, monkeypatch):
    def broken(self, *rest, **more):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(type(diagnoser), "__call__", broken)
    record = Judge(diagnoser, Wanted())(Item("x.nii.gz", str(next(bids.rglob("*.nii.gz")))))
    assert record["error"]["code"] == "broke-down" and "RuntimeError: out of memory" in record["error"]["message"]


def test_map_labels_and_report_lie_under_the_scans_own_path(diagnoser, diagnosis, found, tmp_path, monkeypatch):
    monkeypatch.setattr(type(diagnoser), "__call__", lambda self, *rest, **more: outlined)
    monkeypatch.setattr(type(diagnoser), "explain", lambda self, asked: found)
    monkeypatch.setattr(judge, "heat_map_file", lambda heat_map, asked: b"map" if heat_map is found else b"")
    monkeypatch.setattr(judge, "label_map", lambda asked: b"labels" if asked is outlined else b"")
    monkeypatch.setattr(files, "parts", lambda *rest: {".html": b"page", ".pdf": b"print"})
    outlined = replace(diagnosis, segmentation=object())
    wanted = Wanted(maps=tmp_path / "maps", labels=tmp_path / "labels", report=tmp_path / "reports")
    (tmp_path / "head.nii.gz").write_bytes(b"x")
    for _ in range(2):  # what is written a second time takes the place of the first
        Judge(diagnoser, wanted)(Item("deep/er/head.nii.gz", str(tmp_path / "head.nii.gz")))
    written = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.glob("*/**/*.*")}
    assert written == {
        "maps/deep/er/head_map.nii.gz": b"map",
        "labels/deep/er/head_labels.nii.gz": b"labels",
        "reports/deep/er/head.nii.gz.html": b"page",
        "reports/deep/er/head.nii.gz.pdf": b"print",
    }


def test_nothing_is_written_outside_the_folder_whatever_path_is_listed(tmp_path):
    assert below(tmp_path, "../../etc/a.nii", ".pdf") == tmp_path / "etc" / "a.nii.pdf"
    assert below(tmp_path, "/etc/a.nii.gz", "_map.nii.gz") == tmp_path / "etc" / "a_map.nii.gz"
