"""Asking the server as any program may: forms, plain requests, and their answers."""

import http.client
import json
import uuid

from tests.support import Server

ANALYSIS = "/healthcare/mri/analysis"
KEY = {"Authorization": "Bearer open sesame"}


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
