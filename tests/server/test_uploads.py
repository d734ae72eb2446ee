"""The HTTP API: forms streamed to disk, a record a file, and each refusal by its number and words."""

import email
import io
import json
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pydicom
import pytest

from tests import dicom_study
from tests.asking import ANALYSIS, KEY, ask, form, post
from tests.support import ROOT, Server, phantom, save_nifti, until


def test_one_record_a_file_in_the_order_sent(server: Server, head: bytes):
    status, _, records = post(
        server,
        ("good.nii.gz", head),
        ("cut.nii.gz", head[: len(head) // 2]),
        ("notes.txt", b"hello"),
        ("empty.nii", b""),
    )
    assert status == 200
    assert [record["file"] for record in records] == ["good.nii.gz", "cut.nii.gz", "notes.txt", "empty.nii"]
    good = records[0]
    assert good["study"] == "alzheimers"
    assert good["label"] in good["probabilities"]
    assert good["label"] == max(good["probabilities"], key=good["probabilities"].get)
    assert sum(good["probabilities"].values()) == pytest.approx(1)
    assert good["label"] in good["set"]
    assert "not a medical device" in good["notice"].lower()
    codes = [record["error"]["code"] for record in records[1:]]
    assert codes == ["truncated", "unknown-type", "empty"]
    assert ".nii.gz" in records[2]["error"]["message"]
    assert server.files() == []


def test_the_same_record_as_the_command_line(server: Server, head_file: Path, weights_folder: Path):
    weights = next(weights_folder.iterdir())
    command = [sys.executable, ROOT / "diagnose.py", "--json", "--weights", weights, head_file]
    printed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)[0]
    _, _, (record,) = post(server, ("head.nii.gz", head_file.read_bytes()), field="file")
    assert record.keys() == printed.keys()
    for key in ("label", "set", "gate", "study", "weights", "notice"):
        assert record[key] == printed[key]
    assert record["probabilities"] == pytest.approx(printed["probabilities"], abs=1e-6)


def test_intervals_where_they_are_asked_for(server: Server, head: bytes):
    _, _, (plain,) = post(server, ("head.nii.gz", head))
    _, _, (asked,) = post(server, ("head.nii.gz", head), uncertainty="true")
    assert plain["intervals"] is None and asked["intervals"].keys() == asked["probabilities"].keys()
    assert all(0 <= low <= high <= 1 for low, high in asked["intervals"].values())
    record = server.get("/openapi.json")["components"]["schemas"]["Record"]
    assert asked.keys() == set(record["properties"]) and set(record["required"]) <= asked.keys()


def test_a_report_where_it_is_asked_for(server: Server, head: bytes):
    status, headers, page = post(server, ("head.nii.gz", head), headers={"Accept": "text/html"})
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    assert b"Not a medical device" in page
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    status, headers, paper = post(server, ("head.nii.gz", head), headers={"Accept": "application/pdf"})
    assert (status, headers["content-type"]) == (200, "application/pdf")
    assert paper.startswith(b"%PDF")
    status, _, refusal = post(server, ("a.nii", b"x"), ("b.nii", b"x"), headers={"Accept": "text/html"})
    assert (status, refusal["error"]["code"]) == (422, "one-report")


def test_nothing_judged_is_422_with_each_reason(server: Server, head: bytes):
    status, _, records = post(server, ("cut.nii.gz", head[:2000]), ("text.txt", b"hello"))
    assert status == 422
    assert all(record["error"]["message"] for record in records)


@pytest.mark.parametrize(
    ("files", "fields", "code"),
    [
        ([], {}, "no-file"),
        ([("a.nii", b"x")], {"study": "astrology"}, "unknown-study"),
        ([("a.nii", b"x")], {"weights": "mine"}, "unknown-weights"),
        ([("a.nii", b"x")], {"weight": "mine"}, "unknown-field"),
        ([("a.nii", b"x")], {"judge_anyway": "maybe"}, "unknown-value"),
        ([("a.nii", b"x")], {"language": "tlh"}, "unknown-language"),
    ],
)
def test_what_cannot_be_asked_is_422(server: Server, files, fields, code):
    status, _, answer = post(server, *files, **fields)
    assert (status, answer["error"]["code"]) == (422, code)
    assert server.files() == []


def test_a_weights_file_is_asked_for_by_its_name(server: Server, head: bytes):
    (known,) = server.get("/studies")
    name = known["weights"]["name"]
    for asked in (name, name.removesuffix(".safetensors")):
        status, _, (record,) = post(server, ("head.nii.gz", head), weights=asked, study="alzheimers")
        assert (status, record["weights"]["name"]) == (200, name)
    _, _, refused = post(server, ("head.nii.gz", head), weights="mine")
    assert "'mine' are not here" in refused["error"]["message"] and name in refused["error"]["message"]
    _, _, refused = post(server, ("head.nii.gz", head), weight=name)
    assert "there are: study, weights, judge_anyway, uncertainty, language" in refused["error"]["message"]


def test_a_kind_that_nothing_reads_is_415(server: Server):
    status, _, answer = post(server, ("letter.docx", b"PK"))
    assert (status, answer["error"]["code"]) == (415, "unknown-type")
    assert "letter.docx" in answer["error"]["message"]


def test_a_body_that_is_no_form_is_415(server: Server):
    status, _, body = ask(server, "POST", ANALYSIS, b"{}", Content_Type="application/json")
    assert (status, json.loads(body)["error"]["code"]) == (415, "not-a-form")


def test_a_broken_form_is_400(server: Server):
    status, _, body = ask(server, "POST", ANALYSIS, b"no boundary", Content_Type="multipart/form-data; boundary=x")
    assert (status, json.loads(body)["error"]["code"]) == (400, "broken-form")


def test_too_large_is_413_and_leaves_nothing(strict: Server):
    status, _, answer = post(strict, ("big.nii", bytes(1_200_000)), headers=KEY)
    assert (status, answer["error"]["code"]) == (413, "too-large")
    assert "1 MB" in answer["error"]["message"]
    assert strict.files() == []


def test_far_too_large_is_413_before_it_is_sent(strict: Server):
    with socket.create_connection(("127.0.0.1", strict.port), timeout=60) as line:
        line.sendall(
            f"POST {ANALYSIS} HTTP/1.1\r\nHost: 127.0.0.1:{strict.port}\r\nContent-Length: {1 << 40}\r\n"
            "Authorization: Bearer open sesame\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode()
        )
        assert line.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_large_upload_stays_out_of_memory(server: Server):
    """100 MB arrive while the server's memory is watched; the form is ended only afterwards."""
    size, piece = 100 << 20, bytes(1 << 20)
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="big.nii.gz"\r\n\r\n'
    end = b"\r\n--x--\r\n"
    before = server.memory
    with socket.create_connection(("127.0.0.1", server.port), timeout=120) as line:
        line.sendall(
            f"POST {ANALYSIS} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
            f"Content-Length: {len(head) + size + len(end)}\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode()
            + head
        )
        most = before
        for _ in range(size >> 20):
            line.sendall(piece)
            most = max(most, server.memory)
        until(
            lambda: sum(path.stat().st_size for path in server.uploads.iterdir()) > size - (1 << 20),
            what="the bytes to be on disk",
        )
        most = max(most, server.memory)
        line.sendall(end)
        assert line.recv(100).startswith(b"HTTP/1.1 422 ")
    assert most - before < 20 << 20
    until(lambda: server.files() == [], what="the file to go")


def test_a_sender_that_hangs_up_leaves_nothing(server: Server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as line:
        line.sendall(
            f"POST {ANALYSIS} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: 5000000\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
            'Content-Disposition: form-data; name="files"; filename="a.nii"\r\n\r\n'.encode()
        )
        line.sendall(bytes(1 << 20))
        until(server.files, what="the file to be begun")
    until(lambda: server.files() == [], what="the file to go")


def test_a_good_file_beside_an_odd_one(server: Server, tmp_path: Path):
    """An axis order and a spacing of its own gives the same answer as the phantom's first form."""
    voxels, affine = phantom()
    other = save_nifti(tmp_path / "other.nii", voxels, affine, "PSR").read_bytes()
    same = save_nifti(tmp_path / "same.nii", voxels, affine, "RAS").read_bytes()
    _, _, records = post(server, ("other.nii", other), ("same.nii", same))
    assert records[0]["probabilities"] == pytest.approx(records[1]["probabilities"], abs=1e-3)


@pytest.fixture(scope="module")
def series() -> bytes:
    return dicom_study.packed(dicom_study.instances())


def test_dicom_comes_back_as_dicom_where_it_is_asked_for(server: Server, series: bytes):
    study = pydicom.dcmread(io.BytesIO(series_member(series))).StudyInstanceUID
    body, kind = form(("series.zip", series), judge_anyway="yes")
    status, headers, answer = ask(server, "POST", ANALYSIS, body, Content_Type=kind, Accept="application/dicom")
    assert status == 200 and headers["content-type"].startswith('multipart/related; type="application/dicom"')
    whole = email.message_from_bytes(b"Content-Type: " + headers["content-type"].encode() + b"\r\n\r\n" + answer)
    parts = [pydicom.dcmread(io.BytesIO(part.get_payload(decode=True))) for part in whole.get_payload()]
    assert len(parts) == 4 and {part.StudyInstanceUID for part in parts} == {study}
    status, headers, answer = ask(server, "POST", ANALYSIS, body, Content_Type=kind, Accept="application/zip")
    assert status == 200 and headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer)) as packed:
        assert sorted(packed.namelist()) == [
            f"scanwise.{kind}.dcm" for kind in ("map", "pdf", "picture", "report")
        ]


def series_member(series: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(series)) as packed:
        return packed.read(packed.namelist()[0])


def test_what_was_no_dicom_has_no_study_to_go_back_to(server: Server, head: bytes):
    headers = {"Accept": "application/dicom"}
    status, _, records = post(server, ("head.nii.gz", head), judge_anyway="yes", headers=headers)
    assert status == 422 and records[0]["error"]["code"] == "no-study"
    assert records[0]["error"]["message"].startswith("head.nii.gz: no DICOM file")
