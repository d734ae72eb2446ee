"""The guards of the HTTP side: who is let in from where, and what the server says of itself."""

import json

import pytest
from openapi_spec_validator import validate

from tests.asking import ANALYSIS, ask, form, post
from tests.support import Server, until

TYPED = "application/x-www-form-urlencoded"


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
    assert "script-src 'self';" in headers["content-security-policy"]
    assert "unsafe-eval" not in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize(
    "path",
    [
        "/web/../app.py",
        "/web/translations/en.json",
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
    assert {"200", "400", "401", "408", "413", "415", "422", "429", "503", "507"} <= set(told)


def test_the_log_names_no_file(server: Server, head: bytes):
    post(server, ("Jane_Roe_1950.nii.gz", head[:5000]))
    until(lambda: "POST /healthcare 422" in server.log.read_text(), what="the line in the log")
    assert "Jane" not in server.log.read_text()
