"""The node against the real thing: studies by storescu in, results in Orthanc by C-STORE and STOW-RS."""

import contextlib
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

import node
from tests import dicom_study, orthanc
from tests.support import ROOT, free_ports, listening, until

SR, PDF = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.104.1"
CAPTURE, MAP = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.30"
RESULTS = {SR, PDF, CAPTURE, MAP}
PLANTED = {
    "PatientName": "Plantedname^Aa",
    "PatientID": "74839201",
    "PatientBirthDate": "19010203",
    "AccessionNumber": "55501234",
    "InstitutionName": "Plantedname Hospital",
}
SAID = ("plantedname", "74839201", "19010203", "55501234")


@dataclass(frozen=True)
class Node:
    process: subprocess.Popen
    folder: Path
    log: Path
    port: int

    def lines(self) -> list[str]:
        return re.findall(r"^study \d+: .*$", self.log.read_text(), re.M)

    def left(self) -> list[Path]:
        """Files that lie in the node's folder but for its lock."""
        return [path for path in self.folder.rglob("*") if path.is_file() and path.name != ".lock"]


@contextlib.contextmanager
def running(folder: Path, weights: Path, *arguments: object) -> Iterator[Node]:
    folder.mkdir(parents=True, exist_ok=True)
    log, temporary = folder / "log.txt", folder / "temporary"
    temporary.mkdir(exist_ok=True)
    command = [sys.executable, ROOT / "node.py", "--port", 0, "--folder", folder / "held", "--quiet", 1]
    command += ["--weights", next(weights.glob("*.safetensors")), "--device", "cpu", *arguments]
    with listening(command, log, r"listens: \S+:(\d+)\.", TMPDIR=str(temporary)) as (process, port):
        yield Node(process, folder / "held", log, port)


@pytest.fixture(scope="module")
def images() -> list[pydicom.Dataset]:
    return dicom_study.instances(**PLANTED)


@pytest.fixture(scope="module")
def round_trip(tmp_path_factory, weights_folder, images):
    """One study through the node into an archive, by both ways; what is there afterwards."""
    folder = tmp_path_factory.mktemp("round")
    files = dicom_study.written(images, folder / "study")
    with orthanc.archive(folder / "archive") as by_store, orthanc.archive(folder / "web") as by_stow:
        (metrics,) = free_ports(1)
        to = ["--send-to", f"ARCHIVE@127.0.0.1:{by_store.port}", "--stow", by_stow.stow, "--metrics", metrics]
        with running(folder / "node", weights_folder, *to) as started:
            assert orthanc.echoscu(started.port) == 0
            assert orthanc.echoscu(started.port, calling="STRANGER") != 0
            assert orthanc.storescu(started.port, files, calling="STRANGER") != 0
            assert orthanc.storescu(started.port, files) == 0
            for one in (by_store, by_stow):
                until(lambda one=one: set(one.held()) >= RESULTS, what="the results to arrive")
            until(lambda: not started.left(), what="the node to let everything go")
            assert orthanc.storescu(started.port, files) == 0  # the sender tries again
            until(lambda: len(started.lines()) == 2, what="the copies to be known")
            counters = orthanc.Archive(0, metrics).ask("/metrics").decode()
        yield by_store, by_stow, started, counters


def body(archive: orthanc.Archive, sop: str) -> bytes:
    return archive.file(archive.held()[sop])


def test_results_of_both_ways_belong_to_the_study(round_trip, images):
    for archive in round_trip[:2]:
        assert set(archive.held()) == RESULTS
        for sop in RESULTS:
            made = pydicom.dcmread(io.BytesIO(body(archive, sop)))
            assert made.StudyInstanceUID == images[0].StudyInstanceUID
            assert (str(made.PatientName), made.PatientID) == (PLANTED["PatientName"], PLANTED["PatientID"])
            assert "research use only" in made.SeriesDescription


def test_dcmtk_reads_the_report_and_takes_the_pdf_out(round_trip, tmp_path):
    archive = round_trip[0]
    (tmp_path / "report.dcm").write_bytes(body(archive, SR))
    told = subprocess.run(["dsrdump", tmp_path / "report.dcm"], capture_output=True, text=True, check=True).stdout
    assert "Imaging Measurement Report" in told and "Probability of AD" in told
    (tmp_path / "pdf.dcm").write_bytes(body(archive, PDF))
    subprocess.run(["dcm2pdf", tmp_path / "pdf.dcm", tmp_path / "x.pdf"], check=True, capture_output=True)
    assert (tmp_path / "x.pdf").read_bytes() == pydicom.dcmread(tmp_path / "pdf.dcm").EncapsulatedDocument


def test_the_archive_draws_capture_and_map(round_trip):
    archive, held = round_trip[0], round_trip[0].held()
    capture = np.asarray(Image.open(io.BytesIO(archive.preview(held[CAPTURE]))).convert("RGB"))
    made = pydicom.dcmread(io.BytesIO(archive.file(held[CAPTURE])))
    assert np.array_equal(capture, made.pixel_array)
    heat = pydicom.dcmread(io.BytesIO(archive.file(held[MAP])))
    strongest = int(heat.pixel_array.max(axis=(1, 2)).argmax())
    seen = np.asarray(Image.open(io.BytesIO(archive.preview(held[MAP], strongest))).convert("L"))
    assert seen.shape == heat.pixel_array.shape[1:]
    drawn, stored = seen.astype(float).ravel(), heat.pixel_array[strongest].astype(float).ravel()
    assert np.corrcoef(drawn, stored)[0, 1] > 0.95


def test_each_study_has_one_line_and_no_name(round_trip):
    _, _, started, counters = round_trip
    first, second = started.lines()
    assert re.fullmatch(r"study 1: 60 images, \w+ \d+ %, [\w ]+; 4 results in \d+\.\d s", first)
    assert second == "study 2: 60 images, answered before"
    for text in (started.log.read_text(), counters):
        assert not [word for word in SAID if word in text.lower()]
    assert 'scanwise_instances_total{outcome="kept"} 120.0' in counters
    assert 'scanwise_instances_total{outcome="unknown caller"} 2.0' in counters
    assert re.search(r'scanwise_scans_total\{outcome="[\w ]+",study="alzheimers"\} 1\.0', counters)
    assert re.search(r"scanwise_results_waiting 0\.0", counters)


def test_the_person_is_found_in_the_dicom_headers_alone(round_trip):
    archive, _, started, _ = round_trip
    report = pydicom.dcmread(io.BytesIO(body(archive, PDF)))
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(report.EncapsulatedDocument))
    shown = " ".join(page.extract_text() for page in reader.pages) + str(reader.metadata)
    assert not [word for word in SAID if word in shown.lower()]
    left = [path for path in started.log.parent.rglob("*") if path.is_file() and path != started.log]
    assert [path for path in left if path.name != ".lock"] == []


def test_results_wait_while_the_archive_is_away_even_over_a_restart(tmp_path, weights_folder, images):
    orthanc.needed()
    files = dicom_study.written(images, tmp_path / "study")
    ports = free_ports(2)
    to = ["--send-to", f"ARCHIVE@127.0.0.1:{ports[0]}"]
    with running(tmp_path / "node", weights_folder, *to) as started:
        assert orthanc.storescu(started.port, files) == 0
        until(lambda: "is away" in started.log.read_text(), what="the archive to be missed")
        assert len(started.left()) == 4 and {path.suffix for path in started.left()} == {".dcm"}
    with orthanc.archive(tmp_path / "archive", ports) as archive, running(tmp_path / "node", weights_folder, *to):
        until(lambda: set(archive.held()) == RESULTS, what="the results to arrive")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name an archive"),
        (["--stow", "http://127.0.0.1:1/x"], "--peer AET"),
        (["--send-to", "ORTHANC:4242"], "give AET@host:port"),
        (["--send-to", "A@b:99999"], "give AET@host:port"),
        (["--stow", "http://me:secret@host/x", "--any-peer"], "netrc"),
        (["--aet", "far too long a title", "--stow", "http://h/x"], "no AE title"),
        (["--send-to", "A@b:1", "--quiet", "0"], "above 0"),
    ],
)
def test_a_wrong_command_line_ends_with_two(arguments, words, capsys):
    with pytest.raises(SystemExit) as ended:
        node.parse(list(map(str, arguments)))
    assert ended.value.code == 2 and words in capsys.readouterr().err


def test_callers_and_destinations_are_read_as_they_are_written():
    options = node.parse(["--send-to", "ARCHIVE@[::1]:104", "--peer", "SCANNER@192.0.2.7", "--peer", "OTHER"])
    assert (options.send_to.title, options.send_to.host, options.send_to.port) == ("ARCHIVE", "::1", 104)
    assert [(peer.title, peer.host) for peer in options.peer] == [("SCANNER", "192.0.2.7"), ("OTHER", "")]


def test_missing_weights_are_told(tmp_path, capsys):
    to = ["--send-to", "A@127.0.0.1:1"]
    assert node.main([*to, "--weights", str(tmp_path / "none.safetensors"), "--folder", str(tmp_path / "f")]) == 2
    assert "none.safetensors: no such weights file" in capsys.readouterr().err
