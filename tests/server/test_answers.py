"""What an upload is answered with, who may have it, and that all of it is written down before."""

import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from server import audit
from tests import dicom_study, heads, small_scans
from tests.asking import ANALYSIS, KEY, ask, form, post
from tests.browser import send, visiting
from tests.heads import zipped
from tests.support import Server, running, until

PROXY, NAME = "127.0.0.1", "X-Remote-User"
DOCTOR, NURSE = {NAME: "dr.müller".encode().decode("latin-1")}, {NAME: "nurse"}
TYPED = "application/x-www-form-urlencoded"
SURGEON = {NAME: "surgeon"}
LINE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return small_scans.weights(tmp_path_factory.mktemp("small")).parent


@pytest.fixture(scope="module")
def proxied(tmp_path_factory, small) -> Iterator[Server]:
    """A server that takes this machine for its proxy, and writes everything down."""
    folder = tmp_path_factory.mktemp("proxied")
    arguments = (
        "--proxy-header",
        NAME,
        "--proxy-from",
        PROXY,
        "--audit",
        folder / "audit.jsonl",
        "--workers",
        "1",
    )
    with running(folder, "--weights", small, *arguments) as started:
        yield started
    assert audit.main([str(folder / "audit.jsonl")]) == 0


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, small) -> Iterator[Server]:
    """A server with a password, whose proxy is another machine."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "password").write_text("open sesame\n")
    arguments = ("--proxy-header", NAME, "--proxy-from", "192.0.2.7", "--audit", folder / "audit.jsonl")
    with running(folder, "--weights", small, *arguments, "--password-file", folder / "password") as started:
        yield started


def told(server: Server) -> list[dict]:
    return [json.loads(line) for line in (server.log.parent / "audit.jsonl").read_text("utf-8").splitlines()]


def since(server: Server, count: int) -> list[dict]:
    return told(server)[count:]


def refusal(server: Server, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
    status, _, body = ask(server, method, path, **headers)
    return status, json.loads(body)["error"]["code"] if status >= 400 else ""


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> bytes:
    voxels = np.random.default_rng(3).integers(1, 60, (12, 12, 12)).astype(np.int16)
    path = tmp_path_factory.mktemp("one") / "head.nii.gz"
    return heads.save(path, voxels, np.diag([2.0, 2.0, 2.0, 1.0])).read_bytes()


# --- whom the proxy names ---------------------------------------------------------------------------------------


def test_whom_the_proxy_names_is_admitted_and_nobody_else(proxied: Server):
    assert ask(proxied, "GET", "/studies", **DOCTOR)[0] == 200
    assert refusal(proxied, "GET", "/studies", {}) == (403, "no-person")
    assert refusal(proxied, "POST", ANALYSIS, {}) == (403, "no-person")
    assert refusal(proxied, "GET", "/", {"Accept": "text/html"}) == (403, "no-person")
    assert refusal(proxied, "GET", "/?app=index&session=NEW", LINE) == (403, "no-person")
    assert refusal(proxied, "GET", "/studies", {NAME: " "}) == (403, "no-person")
    assert ask(proxied, "GET", "/healthz")[0] == 200


@pytest.mark.parametrize("more", [{}, KEY])
def test_a_header_from_elsewhere_is_refused_whatever_else_comes(elsewhere: Server, more):
    before = len(told(elsewhere))
    for method, path in (("GET", "/studies"), ("POST", ANALYSIS), ("GET", "/healthz"), ("GET", "/web/style.css")):
        assert refusal(elsewhere, method, path, DOCTOR | more) == (403, "forged-person"), path
    assert refusal(elsewhere, "GET", "/?app=index&session=NEW", LINE | DOCTOR | more) == (403, "forged-person")
    pretending = {"X-Forwarded-For": "192.0.2.7", "X-Real-Ip": "192.0.2.7"}
    assert refusal(elsewhere, "GET", "/studies", DOCTOR | pretending | more) == (403, "forged-person")
    found = since(elsewhere, before)
    assert [(one["what"], one["who"], one["code"]) for one in found] == [
        ("refused", "nobody", "forged-person")
    ] * 6


def test_beside_a_proxy_the_password_admits_from_elsewhere(elsewhere: Server, scan):
    before = len(told(elsewhere))
    assert refusal(elsewhere, "GET", "/studies", {}) == (401, "password")
    assert post(elsewhere, ("a.nii.gz", scan), headers=KEY)[0] in (200, 422)
    assert ask(elsewhere, "POST", "/login", b"password=guess", Content_Type=TYPED)[0] == 401
    _, headers, _ = ask(elsewhere, "POST", "/login", b"password=open+sesame", Content_Type=TYPED)
    cookie = headers["set-cookie"].split(";")[0]
    assert ask(elsewhere, "POST", "/logout", b"", Cookie=cookie)[0] == 303
    assert refusal(elsewhere, "GET", "/studies", {"Cookie": cookie}) == (401, "password")
    found = [(one["what"], one["by"], one.get("code", "")) for one in since(elsewhere, before)]
    assert found == [
        ("scan judged", "password", ""),
        ("refused", "nobody", "password"),
        ("signed in", "password", ""),
        ("signed out", "password", ""),
    ]


def test_the_header_twice_is_refused(proxied: Server):
    request = f"GET /studies HTTP/1.1\r\nHost: localhost\r\n{NAME}: a\r\n{NAME}: b\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", proxied.port), 60) as line:
        line.sendall(request.encode())
        answer = line.makefile("rb").read()
    assert b" 403 " in answer and b"two-people" in answer


# --- what is written down ---------------------------------------------------------------------------------------


def test_what_is_judged_is_written_down_with_its_hashes(proxied: Server, scan):
    before = len(told(proxied))
    status, _, (record,) = post(proxied, ("Somebody.nii.gz", scan), headers=DOCTOR, judge_anyway="yes")
    body, kind = form(("Somebody.nii.gz", scan), judge_anyway="yes")
    assert status == 200
    assert ask(proxied, "POST", ANALYSIS, body, Content_Type=kind, Accept="application/pdf", **DOCTOR)[0] == 200
    post(proxied, ("Somebody.nii.gz", scan[:500]), headers=NURSE)
    first, second, third = since(proxied, before)
    assert (first["by"], first["who"], first["what"], first["form"]) == (
        "proxy",
        "dr.müller",
        "scan judged",
        "json",
    )
    assert first["scan"] == hashlib.sha256(scan).hexdigest() and first["weights"] == record["weights"]["sha256"]
    assert first["outcome"] == record["gate"]["verdict"] and second["form"] == "pdf"
    assert third["who"] == "nurse" and third["outcome"] == "refused: truncated"
    assert "Somebody" not in json.dumps(told(proxied)) and "ller" not in proxied.log.read_text()


def test_each_of_several_people_is_answered_and_written_down(proxied: Server, tmp_path):
    dicom_study.mixed(tmp_path / "export")
    packed = zipped({path.name: path.read_bytes() for path in (tmp_path / "export").iterdir()})
    before = len(told(proxied))
    status, _, records = post(proxied, ("export.zip", packed), headers=DOCTOR, judge_anyway="yes")
    assert status == 200
    assert [one["file"] for one in records] == ["export (series 4).zip", "export (series 4-2).zip"]
    assert [one["what"] for one in since(proxied, before)] == ["scan judged"] * 2
    assert "P1" not in json.dumps(records) and "Müller" not in json.dumps(records, ensure_ascii=False)


def test_the_page_of_one_person_is_not_another_s(proxied: Server, browser, tmp_path):
    dicom_study.mixed(tmp_path / "export")
    before = len(told(proxied))
    with visiting(browser, proxied) as visit:
        page = visit(extra_http_headers=SURGEON)
        assert page.locator("form[action='/logout']").count() == 0
        page.set_input_files("#folder", tmp_path / "export")
        page.wait_for_selector("html[data-view=table]")
        names = page.locator(".many td.file").all_inner_texts()
        assert names == ["export (series 4).tar", "export (series 4-2).tar"]
        table = page.get_attribute(".many a[href$='.csv']", "href")
        assert ask(proxied, "GET", table, **SURGEON)[0] == 200
        assert refusal(proxied, "GET", table, NURSE) == (404, "gone")
        page.click(".many td.file button")
        page.wait_for_selector("html[data-view=result]")
        page.wait_for_selector("#viewer[data-ready=yes]")
        report = f"/results/{page.get_attribute('#viewer', 'data-key')}/report.json"
        assert ask(proxied, "GET", report, **SURGEON)[0] == 200
        assert refusal(proxied, "GET", report, NURSE) == (404, "gone")
        page.click("#series summary")
        assert "person 2" in page.inner_text("#series")
        session = page.evaluate("WebIO._state.CurrentSession.webio_session_id")
        origin = {"Origin": proxied.url, "Host": f"127.0.0.1:{proxied.port}"}
        stolen = f"/?app=index&session={session}"
        line = connected(proxied, stolen, LINE | NURSE | origin)
        until(lambda: any(one.get("code") == "another-s-page" for one in since(proxied, before)), what="the line")
        line.close()
    found = since(proxied, before)
    parts = [one["part"] for one in found if one["what"] == "fetched"]
    assert {"volume", "report.json"} <= set(parts) and parts.count("table.csv") == 2
    assert all(one["who"] == "surgeon" for one in found if one["what"] in ("fetched", "scan judged"))


def connected(server: Server, path: str, headers: dict[str, str]):
    line = socket.create_connection(("127.0.0.1", server.port), 60)
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    line.sendall(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1"))
    return line


def test_what_cannot_be_written_down_is_not_answered(proxied: Server, scan, browser, tmp_path):
    file, away = (proxied.log.parent / name for name in ("audit.jsonl", "away.jsonl"))
    (tmp_path / "head.nii.gz").write_bytes(scan)
    before = len(told(proxied))
    file.rename(away)
    try:
        status, _, answer = post(proxied, ("a.nii.gz", scan), headers=SURGEON, judge_anyway="yes")
        assert (status, answer["error"]["code"]) == (503, "not-recorded")
        assert "cannot be written down in the audit log" in answer["error"]["message"]
        assert proxied.get("/healthz")["trouble"] == "the audit log cannot be written"
        with visiting(browser, proxied) as visit:
            page = visit(extra_http_headers=SURGEON)
            send(page, tmp_path / "head.nii.gz")
            page.wait_for_selector("html[data-view=refusal]")
            assert page.inner_text("h1") == "This could not be written down"
    finally:
        away.rename(file)
    assert post(proxied, ("a.nii.gz", scan), headers=SURGEON, judge_anyway="yes")[0] == 200
    assert proxied.get("/healthz")["trouble"] is None
    assert [one["what"] for one in since(proxied, before)] == ["scan judged"]
