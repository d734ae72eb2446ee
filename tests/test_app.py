"""The API over real HTTP: every status in words, streamed uploads, and what is refused at the door."""

import concurrent.futures
import http.client
import json
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from openapi_spec_validator import validate

from tests.support import ROOT, Server, phantom, running, save_nifti, until

ANALYSIS = "/healthcare/mri/analysis"
KEY = {"Authorization": "Bearer open sesame"}
TYPED = "application/x-www-form-urlencoded"


def form(*files: tuple[str, bytes], field: str = "files", **fields: str) -> tuple[bytes, str]:
    """A multipart body, written by hand, and its content type."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    parts += [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + body
        + b"\r\n"
        for name, body in files
    ]
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def ask(
    server: Server, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def post(
    server: Server,
    *files: tuple[str, bytes],
    headers: dict[str, str] | None = None,
    field: str = "files",
    **fields: str,
):
    body, kind = form(*files, field=field, **fields)
    status, received, answer = ask(server, "POST", ANALYSIS, body, Content_Type=kind, **(headers or {}))
    is_json = received.get("content-type", "").startswith("application/json")
    return status, received, json.loads(answer) if is_json else answer


@pytest.fixture(scope="module")
def head(head_file: Path) -> bytes:
    return head_file.read_bytes()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, weights_folder: Path) -> Iterator[Server]:
    """A server with a password, files of at most 1 MB, one worker and no queue."""
    folder = tmp_path_factory.mktemp("strict")
    (folder / "password").write_text("open sesame\n")
    with running(
        folder,
        "--weights",
        weights_folder,
        "--password-file",
        folder / "password",
        "--max-upload",
        "1",
        "--workers",
        "1",
        "--queue",
        "0",
        "--allow-host",
        "scans.example",
    ) as started:
        yield started


# --- answers ---------------------------------------------------------------------------------------------


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
    status, headers, paper = post(server, ("head.nii.gz", head), headers={"Accept": "application/pdf"})
    assert (status, headers["content-type"]) == (200, "application/pdf")
    assert paper.startswith(b"%PDF")
    status, _, refusal = post(server, ("a.nii", b"x"), ("b.nii", b"x"), headers={"Accept": "text/html"})
    assert (status, refusal["error"]["code"]) == (422, "one-report")


# --- refusals --------------------------------------------------------------------------------------------


def test_nothing_judged_is_422_with_each_reason(server: Server, head: bytes):
    status, _, records = post(server, ("cut.nii.gz", head[:2000]), ("text.txt", b"hello"))
    assert status == 422
    assert all(record["error"]["message"] for record in records)


@pytest.mark.parametrize(
    ("files", "fields", "code"),
    [
        ([], {}, "no-file"),
        ([("a.nii", b"x")], {"study": "astrology"}, "unknown-study"),
    ],
)
def test_what_cannot_be_asked_is_422(server: Server, files, fields, code):
    status, _, answer = post(server, *files, **fields)
    assert (status, answer["error"]["code"]) == (422, code)
    assert server.files() == []


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


def test_without_the_password_401(strict: Server, head: bytes):
    status, headers, answer = post(strict, ("a.nii.gz", head))
    assert (status, answer["error"]["code"]) == (401, "password")
    assert headers["www-authenticate"].startswith("Basic")
    assert post(strict, ("a.nii.gz", head), headers={"Authorization": "Basic !!!"})[0] == 401
    assert post(strict, ("a.nii.gz", head), headers={"Authorization": "Bearer open sesam"})[0] == 401
    assert ask(strict, "GET", "/studies")[0] == 401
    assert ask(strict, "GET", "/healthz")[0] == 200


def test_signing_in_on_the_page(strict: Server):
    status, headers, _ = ask(strict, "GET", "/", Accept="text/html")
    assert (status, headers["location"]) == (303, "/login")
    assert ask(strict, "POST", "/login", b"password=guess", Content_Type=TYPED)[0] == 401
    status, headers, _ = ask(strict, "POST", "/login", b"password=open+sesame", Content_Type=TYPED)
    assert status == 302
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert ask(strict, "GET", "/", Cookie=cookie.split(";")[0])[0] == 200


def test_a_full_queue_is_503_with_a_time_to_come_back(strict: Server, head: bytes):
    """One worker and no queue: of six that come at once some are judged and the others told to come again."""
    with concurrent.futures.ThreadPoolExecutor(6) as people:
        answers = list(people.map(lambda _: post(strict, ("a.nii.gz", head), headers=KEY), range(6)))
    statuses = {status for status, _, _ in answers}
    assert statuses == {200, 503}
    for status, headers, answer in answers:
        if status == 503:
            assert int(headers["retry-after"]) > 0
            assert answer["error"]["code"] == "busy"


# --- at the door -----------------------------------------------------------------------------------------


def test_a_foreign_host_is_refused(server: Server, strict: Server):
    status, _, body = ask(server, "GET", "/healthz", Host="evil.example")
    assert (status, json.loads(body)["error"]["code"]) == (421, "foreign-host")
    assert ask(server, "GET", "/healthz", Host=f"localhost:{server.port}")[0] == 200
    assert ask(strict, "GET", "/healthz", Host="scans.example")[0] == 200


@pytest.mark.parametrize(("method", "path"), [("POST", ANALYSIS), ("PUT", "/uploads/x"), ("POST", "/bye/x")])
def test_a_foreign_origin_is_refused(server: Server, method: str, path: str):
    body, kind = form(("a.nii", b"x"))
    status, _, answer = ask(server, method, path, body, Content_Type=kind, Origin="http://evil.example")
    assert (status, json.loads(answer)["error"]["code"]) == (403, "foreign-origin")
    assert server.files() == []


@pytest.mark.parametrize("origin", [{}, {"Origin": "http://evil.example"}])
def test_a_websocket_needs_our_origin(server: Server, origin: dict[str, str]):
    status, _, _ = ask(
        server,
        "GET",
        "/?app=index&session=NEW",
        Upgrade="websocket",
        Connection="Upgrade",
        Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
        Sec_WebSocket_Version="13",
        **origin,
    )
    assert status == 403


def test_the_page_cannot_be_pointed_elsewhere(server: Server):
    status, headers, _ = ask(server, "GET", "/?pywebio_api=http://evil.example/")
    assert status == 400
    status, headers, _ = ask(server, "GET", "/")
    assert status == 200
    assert "connect-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "path",
    [
        "/web/../app.py",
        "/web/texts.json",
        "/js/../../__init__.py",
        "/nothing",
        "/results/unknown/volume",
        "/results/unknown/report.pdf",
    ],
)
def test_what_is_not_there_or_not_for_you(server: Server, path: str):
    status, _, body = ask(server, "GET", path)
    assert status in (403, 404)
    assert json.loads(body)["error"]["message"]


# --- what the server says of itself ----------------------------------------------------------------------


def test_studies_health_and_metrics(server: Server):
    (study,) = server.get("/studies")
    assert study["study"]["key"] == "alzheimers"
    assert len(study["weights"]["sha256"]) == 64
    health = server.get("/healthz")
    assert health["live"] is True
    assert health["queue"] == 0
    assert health["device"].startswith(("cpu", "cuda"))
    _, _, text = ask(server, "GET", "/metrics")
    assert b"# TYPE scanwise_queue_length gauge" in text


def test_the_api_description_is_valid_and_complete(server: Server):
    document = server.get("/openapi.json")
    validate(document)
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {ANALYSIS, "/studies", "/healthz", "/openapi.json", "/metrics"}
    told = document["paths"][ANALYSIS]["post"]["responses"]
    assert {"200", "400", "401", "413", "415", "422", "503"} <= set(told)


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


def test_health_answers_while_scans_are_worked_on(server: Server, head: bytes):
    with concurrent.futures.ThreadPoolExecutor(4) as people:
        jobs = [people.submit(post, server, ("a.nii.gz", head)) for _ in range(4)]
        until(lambda: server.get("/healthz")["queue"] > 0, what="a queue")
        assert not all(job.done() for job in jobs)
        assert {job.result()[0] for job in jobs} == {200}


def test_the_log_names_no_file(server: Server, head: bytes):
    post(server, ("Jane_Roe_1950.nii.gz", head[:5000]))
    until(lambda: "POST /healthcare 422" in server.log.read_text(), what="the line in the log")
    assert "Jane" not in server.log.read_text()


# --- starting --------------------------------------------------------------------------------------------


def start(*arguments: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "app.py", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def test_a_taken_port_and_an_empty_folder_are_told_in_words(server: Server, tmp_path: Path):
    taken = start("--port", server.port, "--uploads", tmp_path / "up")
    assert taken.returncode == 2
    assert f"port {server.port}" in taken.stderr
    assert "--port" in taken.stderr
    assert "Traceback" not in taken.stderr
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "bad.x.safetensors").write_bytes(b"not weights")
    broken = start("--port", "0", "--weights", tmp_path / "weights", "--uploads", tmp_path / "up")
    assert broken.returncode == 2
    assert "bad.x.safetensors" in broken.stderr
    assert "no weights file" in broken.stderr
    assert "Traceback" not in broken.stderr


def test_what_a_crash_left_goes_at_the_next_start(tmp_path: Path, weights_folder: Path):
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / "left.nii.gz").write_bytes(b"x")
    with running(tmp_path, "--weights", weights_folder) as started:
        assert started.files() == []


def test_a_good_file_beside_an_odd_one(server: Server, tmp_path: Path):
    """An axis order and a spacing of its own gives the same answer as the phantom's first form."""
    voxels, affine = phantom()
    other = save_nifti(tmp_path / "other.nii", voxels, affine, "PSR").read_bytes()
    same = save_nifti(tmp_path / "same.nii", voxels, affine, "RAS").read_bytes()
    _, _, records = post(server, ("other.nii", other), ("same.nii", same))
    assert records[0]["probabilities"] == pytest.approx(records[1]["probabilities"], abs=1e-3)
