"""What every trial speaks through: raw connections, requests, answers, and the notes of what was wrong."""

import contextlib
import json
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.support import Server, until

ANALYSIS = "/healthcare/mri/analysis"
PASSWORD = "öpen sesame"
KEY = b"Authorization: Bearer " + PASSWORD.encode() + b"\r\n"
FORM = b"Content-Type: multipart/form-data; boundary=x\r\n"
PART = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.nii.gz"\r\n\r\n'
TIMEOUT = 2  # seconds that the server waits for a silent connection here
LIMIT = 5  # MB of one file
SILENT = "(nothing)"


@dataclass
class Trial:
    """What a trial counted, and what is wrong with it: nothing, if all went as it must."""

    seen: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def must(self, right: bool, words: str) -> None:
        if not right:
            self.wrong.append(words)


@contextlib.contextmanager
def line(server: Server, source: str = "127.0.0.1", timeout: float = 20) -> Iterator[socket.socket]:
    """A connection from one of the loopback's addresses, each of which is a client of its own."""
    made = socket.create_connection(("127.0.0.1", server.port), timeout, (source, 0))
    try:
        yield made
    finally:
        made.close()


def head(server: Server, what: str, *headers: bytes) -> bytes:
    return f"{what} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n".encode() + b"".join(headers) + b"\r\n"


def heard(connection: socket.socket) -> tuple[str, bytes]:
    """The status and all that came until the other side closed or had said it all."""
    data = b""
    try:
        while piece := connection.recv(1 << 16):
            data += piece
            top, found, body = data.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", top)
            if found and length and len(body) >= int(length[1]):
                break
    except (ConnectionError, TimeoutError) as error:
        if not data:
            return f"({type(error).__name__})", b""
    status = re.match(rb"HTTP/1\.\d (\d+)", data)
    return (status[1].decode() if status else SILENT), data


def ask(server: Server, request: bytes, source: str = "127.0.0.1", timeout: float = 20) -> tuple[str, bytes]:
    try:
        with line(server, source, timeout) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(request)
            return heard(connection)
    except OSError as error:
        return f"({type(error).__name__})", b""


def code(data: bytes) -> str:
    """The error's code in an answer, where it is one."""
    try:
        return json.loads(data.partition(b"\r\n\r\n")[2])["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return ""


def post(server: Server, body: bytes, *headers: bytes, source: str = "127.0.0.1") -> tuple[str, bytes]:
    length = f"Content-Length: {len(body)}\r\n".encode()
    return ask(server, head(server, f"POST {ANALYSIS}", KEY, FORM, length, *headers) + body, source, 60)


def alive(server: Server, trial: Trial, source: str = "127.0.9.9") -> None:
    """Whether somebody else is served meanwhile."""
    status, _ = ask(server, head(server, "GET /healthz"), source)
    trial.must(status == "200", f"another client got {status}")


def health(server: Server, patience: float = 0) -> dict:
    """What /healthz says; a full server is asked again."""
    end = time.monotonic() + patience
    while True:
        status, data = ask(server, head(server, "GET /healthz"), "127.0.9.9")
        if status == "200":
            return json.loads(data.partition(b"\r\n\r\n")[2])
        if time.monotonic() > end:
            raise AssertionError(f"/healthz answers {status}")
        time.sleep(0.2)


def server_metric(server: Server, name: str) -> float:
    _, data = ask(server, head(server, "GET /metrics", KEY), "127.0.9.8")
    return float(re.search(rf"(?m)^{name} (\S+)$".encode(), data)[1])


def quiet(server: Server) -> None:
    """Wait until every upload has gone, from the disk and from the books."""
    until(lambda: health(server, 30)["connections"]["open"] <= 1, 60, "the lines to go")
    until(lambda: server_metric(server, "scanwise_uploads_bytes") == 0, 60, "the uploads' share to be given back")
    until(lambda: server.files() == [], 60, "the files to go")


def abort(server: Server, request: bytes) -> None:
    with line(server) as connection:
        connection.sendall(request)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
