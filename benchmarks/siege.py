"""A siege of the server over raw HTTP and websockets: what it answers and leaves, and whether others are served.

    python -m benchmarks.siege [--scale 1.0] [--only WORD]

Everything stays on this machine's loopback and is bounded; the server is a process of its own, with untrained
weights and short time-outs. Each trial prints what it did, how often each answer came, and whether that is right;
the exit status is 1 where one is not. `tests/test_siege.py` runs the same trials smaller.
"""

import argparse
import base64
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.support import Server, phantom, running, save_nifti, until, untrained

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


# --- requests ------------------------------------------------------------------------------------------------


def broken_requests(server: Server, scale: float) -> Trial:
    """Request lines and headers that are none, cut, doubled, mutated."""
    trial, luck = Trial(), random.Random(7)
    host = f"Host: 127.0.0.1:{server.port}\r\n".encode()
    whole = head(server, "GET /studies", KEY)
    odd = [
        b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01" + bytes(200) + b"\r\n\r\n",
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n" + host + b"\r\n", b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + host * 2 + b"\r\n",
        b"GET / HTTP/1.1\r\n" + host + b"A: " + b"b" * 40_000 + b"\r\n\r\n",
        b"POST /login HTTP/1.1\r\n" + host + b"Content-Length: -1\r\n\r\n",
        b"POST /login HTTP/1.1\r\n" + host + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST /login HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"POST /login HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        b"GET //../../etc/passwd HTTP/1.1\r\n" + host + b"\r\n", b"GET /%00 HTTP/1.1\r\n" + host + b"\r\n",
        b"OPTIONS * HTTP/1.1\r\n" + host + b"\r\n", b"PROPFIND / HTTP/1.1\r\n" + host + b"\r\n",
    ]  # fmt: skip
    for _ in range(int(300 * scale)):
        data = bytearray(whole)
        for _ in range(luck.randint(1, 6)):
            data[luck.randrange(len(data))] = luck.randrange(256)
        odd.append(bytes(data) + b"\r\n\r\n")
    for request in odd:
        status, _ = ask(server, request, timeout=TIMEOUT + 10)
        trial.seen[status] += 1
        trial.must(status != "500", f"{request[:60]!r} was answered 500")
    alive(server, trial)
    return trial


def heads(server: Server, scale: float) -> Trial:
    """HEAD wherever GET is."""
    trial = Trial()
    for path in ("/", "/healthz", "/studies", "/metrics", "/openapi.json", "/login", "/web/style.css", "/nothing"):
        status, data = ask(server, head(server, f"HEAD {path}", KEY, b"Connection: close\r\n"))
        trial.seen[status] += 1
        trial.must(status == ("404" if path == "/nothing" else "200"), f"HEAD {path} is {status}")
        trial.must(data.endswith(b"\r\n\r\n"), f"HEAD {path} has a body")
    return trial


def files_not_served(server: Server, scale: float) -> Trial:
    """What the page does not load of PyWebIO's files, and what lies beside ours."""
    trial = Trial()
    for path in (
        "/js/ag-grid-enterprise.min.js", "/js/ag-grid-community.min.js", "/js/codemirror.min.js", "/js/plotly.js",
        "/js/require.min.js", "/codemirror/addons.js", "/image/favicon_open_32.png", "/web/texts.json",
        "/web/pages/head.html",
    ):  # fmt: skip
        status, _ = ask(server, head(server, f"GET {path}"))
        trial.seen[status] += 1
        trial.must(status == "404", f"{path} is served ({status})")
    _, data = ask(server, head(server, "GET /", KEY))
    policy = re.search(rb"Content-Security-Policy: (.*)\r\n", data)[1]
    scripts = re.search(rb"script-src ([^;]*)", policy)[1]
    trial.must(scripts == b"'self'", f"scripts may come from {scripts.decode()}")
    for file in re.findall(rb'(?:src|href)="(/[^"]+)"', data):
        status, _ = ask(server, head(server, f"GET {file.decode()}"))
        trial.must(status == "200", f"the page's own {file.decode()} is {status}")
    return trial


# --- connections ---------------------------------------------------------------------------------------------


def idle_connections(server: Server, scale: float) -> Trial:
    """One client opens many connections and says nothing; then many clients do."""
    trial = Trial()
    with contextlib.ExitStack() as lines:
        held = [lines.enter_context(line(server)) for _ in range(max(150, int(300 * scale)))]
        alive(server, trial)
        until(
            lambda: ask(server, head(server, "GET /healthz"))[0] == "503", 30, "one more to be told of the bound"
        )
        trial.seen["held by one client"] = health(server)["connections"]["open"]
        closed = until(
            lambda: sum(shut(one) for one in held) == len(held), 4 * TIMEOUT + 30, "idle lines to be cut"
        )
        trial.seen["cut when silent"] = len(held) if closed else 0
    alive(server, trial, "127.0.0.1")
    with contextlib.ExitStack() as lines:
        for number in range(int(800 * scale)):
            with contextlib.suppress(OSError):
                lines.enter_context(line(server, f"127.0.{1 + number // 200}.{1 + number % 200}", 5))
        told = health(server, patience=6 * TIMEOUT)
        trial.seen["held by many clients"] = told["connections"]["open"]
        trial.must(told["connections"]["open"] <= told["connections"]["most"], "more lines than it said")
    until(lambda: health(server, 6 * TIMEOUT)["connections"]["open"] < 10, 60, "the lines to go")
    return trial


def shut(connection: socket.socket) -> bool:
    connection.settimeout(0.001)
    try:
        return connection.recv(1 << 16, socket.MSG_PEEK) == b"" or b"503" in connection.recv(
            1 << 16, socket.MSG_PEEK
        )
    except ConnectionError:
        return True
    except TimeoutError:
        return False


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


def slow_heads(server: Server, scale: float) -> Trial:
    """Headers that come a byte at a time are cut when the time is up."""
    trial, began = Trial(), time.monotonic()
    with line(server) as connection:
        connection.settimeout(0.3)
        while time.monotonic() < began + 10 * TIMEOUT:
            try:
                connection.sendall(b"G")
                if connection.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
    taken = time.monotonic() - began
    trial.seen["cut"] += 1
    trial.must(taken < 6 * TIMEOUT, f"a head that crawls was heard for {taken:.0f} s")
    return trial


# --- bodies --------------------------------------------------------------------------------------------------


def bodies_that_stop(server: Server, scale: float) -> Trial:
    """Uploads that fall silent are answered 408 and leave nothing; so are the small bodies of other forms."""
    trial = Trial()
    with contextlib.ExitStack() as lines:
        held = []
        for _ in range(max(2, int(12 * scale))):
            connection = lines.enter_context(line(server, timeout=60))
            connection.sendall(
                head(server, f"POST {ANALYSIS}", KEY, FORM, b"Content-Length: 2000000\r\n") + PART + b"x" * 5000
            )
            held.append(connection)
        alive(server, trial)
        for connection in held:
            status, data = heard(connection)
            trial.seen[f"{status} {code(data)}"] += 1
            trial.must((status, code(data)) == ("408", "too-slow"), f"a silent body got {status} {code(data)}")
    length = b"Content-Length: 100\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    began = time.monotonic()
    ask(server, head(server, "POST /login", length) + b"password=", timeout=60)
    trial.must(time.monotonic() - began < 6 * TIMEOUT, "a form that stops was waited for")
    until(lambda: server.files() == [], 30, "the files to go")
    return trial


def aborted_uploads(server: Server, scale: float) -> Trial:
    """Uploads whose sender hangs up: no file, no memory, no flood of lines."""
    trial, count = Trial(), int(2000 * scale)
    request = head(server, f"POST {ANALYSIS}", KEY, FORM, b"Content-Length: 2000000\r\n") + PART + b"x" * 2000
    for _ in range(count // 10):  # before the memory is looked at: what is loaded once
        abort(server, request)
    before, lines = server.memory, server.log.read_text().count("\n")
    for _ in range(count):
        abort(server, request)
    quiet(server)
    grown, said = (server.memory - before) / (1 << 20), server.log.read_text().count("\n") - lines
    trial.seen |= Counter({"aborted": count, "MB more": round(grown), "lines more": said})
    trial.must(grown < 10 + count / 500, f"{grown:.0f} MB more after {count} aborted uploads")
    trial.must(said < 200 + count / 10, f"{said} lines for {count} aborted uploads")
    trial.must("Traceback" not in server.log.read_text(), "a traceback in the log")
    return trial


def quiet(server: Server) -> None:
    """Wait until every upload has gone, from the disk and from the books."""
    until(lambda: health(server, 30)["connections"]["open"] <= 1, 60, "the lines to go")
    until(lambda: server_metric(server, "scanwise_uploads_bytes") == 0, 60, "the uploads' share to be given back")
    until(lambda: server.files() == [], 60, "the files to go")


def abort(server: Server, request: bytes) -> None:
    with line(server) as connection:
        connection.sendall(request)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


def unfinished_uploads(server: Server, scale: float) -> Trial:
    """Many uploads begin at once: what they declare is counted, and past the disk's share it is 507."""
    trial = Trial()
    size = LIMIT << 20
    with contextlib.ExitStack() as lines:
        held = []
        for number in range(30):
            connection = lines.enter_context(line(server, f"127.0.2.{1 + number}", 60))
            connection.sendall(
                head(server, f"POST {ANALYSIS}", KEY, FORM, f"Content-Length: {size}\r\n".encode()) + PART
            )
            held.append(connection)
        until(lambda: len(server.files()) >= 20, 30, "the uploads to begin")
        status, data = post(server, PART + b"x" * 100 + b"\r\n--x--\r\n", source="127.0.3.1")
        trial.seen[f"one more: {status} {code(data)}"] += 1
        trial.must((status, code(data)) == ("507", "no-room"), f"past the share it said {status} {code(data)}")
        trial.must(b"try again" in data or b"tell" in data, "no way out in the words")
    quiet(server)
    status, data = post(server, PART + b"x" * 100 + b"\r\n--x--\r\n", source="127.0.3.1")
    trial.must(status == "422", f"when they had gone it said {status}")
    return trial


def forms(server: Server, scale: float) -> Trial:
    """Forms of a million fields, of endless heads, of odd names; what one file is called in them."""
    trial = Trial()
    field = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n'
    many = field * int(1_000_000 * min(1, scale)) + b"--x--\r\n"
    began = time.monotonic()
    status, data = post(server, many[: 8 * (LIMIT << 20)])
    taken = time.monotonic() - began
    trial.seen[f"{many.count(b'name=')} fields: {status}"] += 1
    trial.must(status == "413" and code(data) == "too-many", f"so many fields got {status} {code(data)}")
    trial.must(taken < 10, f"they took {taken:.1f} s")
    long = b'--x\r\nContent-Disposition: form-data; name="a"; b=' + b"c" * 1_000_000 + b"\r\n\r\n\r\n--x--\r\n"
    status, data = post(server, long)
    trial.seen[f"a part's head of a megabyte: {status}"] += 1
    trial.must(status in ("400", "413"), f"a part's endless head got {status}")
    for name, shown in (
        (b"filename*=UTF-8''%C3%A4.nii.gz", "ä.nii.gz"),
        (b'filename="' + b"n" * 300 + b'.nii.gz"', "n.nii.gz"),
    ):
        body = b'--x\r\nContent-Disposition: form-data; name="files"; ' + name + b"\r\n\r\nx\r\n--x--\r\n"
        status, data = post(server, body)
        said = data.decode("utf-8", "replace")
        trial.seen[f"{name[:10].decode()}…: {status}"] += 1
        trial.must(status == "422" and shown in said and "unknown-type" not in said, f"{name[:30]!r}: {status}")
    for kind in (b"text/html", b"application/pdf"):
        status, _ = post(server, PART + b"x\r\n--x--\r\n", b"Accept: " + kind + b"\r\n")
        trial.must(status == "422", f"an unreadable file asked for as {kind.decode()} is {status}")
    return trial


def folder_gone(server: Server, scale: float) -> Trial:
    """The uploads folder vanishes: 507 in words, told in /healthz, and made again."""
    trial = Trial()
    shutil.rmtree(server.uploads)
    status, data = post(server, PART + b"x" * 100 + b"\r\n--x--\r\n")
    trial.seen[f"{status} {code(data)}"] += 1
    trial.must((status, code(data)) == ("507", "no-room"), f"without its folder it said {status} {code(data)}")
    told = health(server)
    trial.must(bool(told["trouble"]) and not told["ready"], "nothing of it in /healthz")
    until(lambda: health(server)["trouble"] is None, 60, "the folder to be made again")
    status, data = post(server, PART + b"x" * 100 + b"\r\n--x--\r\n")
    trial.must(status == "422", f"afterwards it said {status}")
    return trial


# --- the password --------------------------------------------------------------------------------------------


def guesses(server: Server, scale: float) -> Trial:
    """Guessing by Bearer, Basic and the form: ten tries an address, then 429; others still enter."""
    trial = Trial()
    kinds = {
        "Bearer": lambda n: head(server, "GET /studies", f"Authorization: Bearer guess{n}\r\n".encode()),
        "Basic": lambda n: head(
            server, "GET /studies", b"Authorization: Basic " + base64.b64encode(f"a:guess{n}".encode()) + b"\r\n"
        ),
        "form": lambda n: (
            head(
                server, "POST /login", b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 14\r\n"
            )
            + b"password=guess"
        ),
    }
    for place, (kind, request) in enumerate(kinds.items()):
        for number in range(max(20, int(100 * scale))):
            status, _ = ask(server, request(number), f"127.0.4.{1 + place}")
            trial.seen[f"{kind} {status}"] += 1
        trial.must(trial.seen[f"{kind} 401"] == 10, f"{trial.seen[f'{kind} 401']} guesses by {kind} were heard")
    status, _ = ask(server, head(server, "GET /studies", KEY), "127.0.4.1")
    trial.must(status == "429", f"the right word after too many wrong ones is {status}")
    for form in (PASSWORD.encode(), PASSWORD.encode("latin-1")):
        status, _ = ask(
            server, head(server, "GET /studies", b"Authorization: Bearer " + form + b"\r\n"), "127.0.4.9"
        )
        trial.must(status == "200", f"the right password by Bearer is {status}")
    return trial


def signing_out(server: Server, scale: float) -> Trial:
    """A browser that signs out is out."""
    trial = Trial()
    body = b"password=%C3%B6pen+sesame"
    length = f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n".encode()
    status, data = ask(server, head(server, "POST /login", length) + body, "127.0.5.1")
    cookie = b"Cookie: " + re.search(rb"Set-Cookie: (scanwise=[^;]+)", data)[1] + b"\r\n"
    trial.must(b"Max-Age=" in data, "the cookie does not expire")
    for what, wanted in (("GET /studies", "200"), ("POST /logout", "303"), ("GET /studies", "401")):
        status, _ = ask(
            server, head(server, what, cookie, b"Content-Length: 0\r\n" * what.startswith("POST")), "127.0.5.1"
        )
        trial.seen[f"{what} {status}"] += 1
        trial.must(status == wanted, f"{what} is {status}")
    return trial


# --- websockets ----------------------------------------------------------------------------------------------


def upgrade(
    server: Server, source: str, lines: contextlib.ExitStack, session: str = "NEW"
) -> tuple[socket.socket, str]:
    connection = lines.enter_context(line(server, source))
    connection.sendall(
        head(
            server,
            f"GET /?app=index&session={session}",
            KEY,
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            f"Origin: http://127.0.0.1:{server.port}\r\n".encode(),
        )
    )
    data = connection.recv(1 << 16)
    return connection, data[9:12].decode()


def opened_page(server: Server, source: str, lines: contextlib.ExitStack) -> str:
    """The token of a page that says a word and stays."""
    connection, _ = upgrade(server, source, lines)
    connection.sendall(message(b'{"event": "none", "task_id": "none", "data": null}'))
    data = b""
    while not (found := re.search(rb'"token": "([\w-]+)"', data)):
        data += connection.recv(1 << 16)
    return found[1].decode()


def files_of_a_page(server: Server, scale: float) -> Trial:
    """A page's files: one that stops, one purged while it arrives, a long name, and none after it closed."""
    trial, source = Trial(), "127.0.11.1"

    def put(token: str, size: int, body: bytes, name: str = "a.nii") -> bytes:
        headers = f"X-File-Name: {name}\r\nContent-Length: {size}\r\n".encode()
        return head(server, f"PUT /uploads/{token}", KEY, headers) + body

    with contextlib.ExitStack() as lines:
        token = opened_page(server, source, lines)
        status, data = ask(server, put(token, 100, b"x" * 50), source)
        trial.must((status, code(data)) == ("408", "too-slow"), f"a file that stops is {status} {code(data)}")
        with line(server, source) as connection:
            connection.sendall(put(token, 100, b"x" * 50))
            until(server.files, 20, "the file to be begun")
            for file in server.uploads.glob("scanwise-*"):
                file.unlink()
            connection.sendall(b"x" * 50)
            status, data = heard(connection)
        trial.must((status, code(data)) == ("410", "gone"), f"a file that is purged is {status} {code(data)}")
        trial.must(b"no longer kept" in data and b"check the path" not in data, "it is not told truly")
        status, data = ask(server, put(token, 100, b"x" * 100, "n" * 300 + ".nii"), source)
        trial.must(status == "200", f"a long name is {status} {code(data)}")
        status, data = ask(server, put(token, (LIMIT << 20) + 1, b"x" * ((LIMIT << 20) + 1)), source)
        trial.must((status, code(data)) == ("413", "too-large"), f"too large a file is {status} {code(data)}")
        trial.must(len(server.files()) == 1, f"{len(server.files())} files are held")
        bye = f"POST /bye/{token}"
        ask(server, head(server, bye, KEY, b"Content-Length: 0\r\n"), source)
        until(lambda: server.files() == [], 20, "the closed page's files to go")
        status, data = ask(server, put(token, 100, b"x" * 100), source)
        trial.must((status, code(data)) == ("404", "no-page"), f"for a closed page it is {status} {code(data)}")
    trial.seen["asked"] = 6
    return trial


def message(data: bytes, opcode: int = 1) -> bytes:
    """A masked frame, as a browser sends one; the mask is zero."""
    size = len(data)
    if size < 126:
        length = bytes([128 | size])
    else:
        length = b"\xfe" + size.to_bytes(2, "big") if size < 65536 else b"\xff" + size.to_bytes(8, "big")
    return bytes([128 | opcode]) + length + bytes(4) + data


def silent_pages(server: Server, scale: float) -> Trial:
    """One client opens page after page without a word: bounded, closed, and another's page opens meanwhile."""
    trial = Trial()
    with contextlib.ExitStack() as lines:
        began = time.monotonic()
        for _ in range(40):
            trial.seen[upgrade(server, "127.0.6.1", lines)[1]] += 1
        rounds = 1 + int((time.monotonic() - began) / TIMEOUT)  # the silent ones are closed, and others may come
        trial.must(16 <= trial.seen["101"] <= 16 * rounds, f"{trial.seen['101']} pages were opened for one client")
        _, status = upgrade(server, "127.0.6.2", lines)
        trial.must(status == "101", f"another client's page got {status}")
    with contextlib.ExitStack() as lines:  # the line is cut and the page not closed: the oldest make way
        for number in range(100):
            status = upgrade(server, f"127.0.7.{1 + number % 10}", lines)[1]
            trial.seen[f"then {status}"] += 1
            lines.close()
        trial.must(trial.seen["then 101"] == 100, f"{trial.seen['then 503']} of 100 were kept out by cut lines")
        alive(server, trial)
    until(lambda: server_metric(server, "scanwise_pages_open") == 0, 30 + 6 * TIMEOUT, "silent pages to be closed")
    return trial


def server_metric(server: Server, name: str) -> float:
    _, data = ask(server, head(server, "GET /metrics", KEY), "127.0.9.8")
    return float(re.search(rf"(?m)^{name} (\S+)$".encode(), data)[1])


def odd_messages(server: Server, scale: float) -> Trial:
    """What no page says: no JSON, binary, a frame past the limit, frames that are none, another session's name."""
    trial, luck = Trial(), random.Random(11)
    odd = [
        message(b"no JSON"), message(b"[]"), message(b'{"event": 7}'), message(b'{"event": "js_yield"}'),
        message(b"\xff\xfe"), message(b"x" * 100, 2), message(b"[" * 60_000), message(b"0" * (2 << 20)),
        b"\x81\xff" + b"\x7f" * 8, b"\xff" * 50,
        message(b'{"event": "js_yield", "task_id": "none", "data": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
    ]  # fmt: skip
    odd += [luck.randbytes(luck.randint(1, 300)) for _ in range(int(100 * scale))]
    for number, data in enumerate(odd):
        with contextlib.ExitStack() as lines:
            connection, status = upgrade(server, f"127.0.8.{1 + number % 50}", lines)
            trial.seen[f"opened {status}"] += 1
            with contextlib.suppress(OSError):
                connection.sendall(data)
                connection.sendall(message(b"", 8))
                connection.recv(100)
    with contextlib.ExitStack() as lines:
        trial.seen[f"a session of another name {upgrade(server, '127.0.8.99', lines, 'none')[1]}"] += 1
    alive(server, trial)
    trial.must("Traceback" not in server.log.read_text(), "a traceback in the log")
    return trial


# --- the end -------------------------------------------------------------------------------------------------


def stopping(server: Server, scale: float) -> Trial:
    """SIGTERM with scans at work, in the queue and on their way: all are told, within five seconds."""
    trial = Trial()
    scan = (server.uploads.parent / "head.nii.gz").read_bytes()
    with contextlib.ExitStack() as lines:
        asked = [lines.enter_context(line(server, f"127.0.10.{1 + n}", 30)) for n in range(8)]
        whole = PART + scan + b"\r\n--x--\r\n"
        for number, connection in enumerate(asked):
            length = f"Content-Length: {len(whole) + (50 if number > 4 else 0)}\r\n".encode()
            connection.sendall(head(server, f"POST {ANALYSIS}", KEY, FORM, length) + whole)
        until(lambda: health(server)["queue"] > 0, 30, "a queue")
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        for connection in asked:
            status, data = heard(connection)
            trial.seen[f"{status} {code(data)}".strip()] += 1
            trial.must(status in ("200", "422", "503"), f"one who waited got {status}")
        told = time.monotonic() - began
        server.process.wait(60)
        taken = time.monotonic() - began
    trial.seen["ms until all were told"] = round(1000 * told)
    trial.seen["ms until it had stopped"] = round(1000 * taken)
    trial.must(trial.seen["503 stopping"] >= 3, "nobody was told that it stops")
    trial.must(told < 5 and taken < 6, f"it took {told:.1f} s to tell and {taken:.1f} s to stop")
    trial.must(server.files() == [], "files were left")
    return trial


TRIALS: dict[str, Callable[[Server, float], Trial]] = {
    trial.__name__.replace("_", " "): trial
    for trial in (
        broken_requests, heads, files_not_served, idle_connections, slow_heads, bodies_that_stop, aborted_uploads,
        unfinished_uploads, forms, folder_gone, files_of_a_page, signing_out, silent_pages, odd_messages, guesses,
        stopping,
    )
}  # fmt: skip


@contextlib.contextmanager
def besieged(folder: Path, weights: Path | None = None) -> Iterator[Server]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "password").write_text(PASSWORD, encoding="utf-8")
    save_nifti(folder / "head.nii.gz", *phantom(4.0))
    options = [
        "--weights", weights or untrained(folder / "weights"), "--password-file", folder / "password",
        "--max-upload", str(LIMIT), "--workers", "1", "--queue", "6", "--timeout", str(TIMEOUT), "--keep", "0.2",
    ]  # fmt: skip
    with running(folder, *options) as server:
        yield server


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Besiege the server over loopback.")
    parser.add_argument("--scale", type=float, default=1.0, help="how much of everything (%(default)s)")
    parser.add_argument("--only", default="", metavar="WORD", help="trials whose name holds this word")
    options = parser.parse_args(argv)
    bad = 0
    with tempfile.TemporaryDirectory() as folder, besieged(Path(folder)) as server:
        process = psutil.Process(server.process.pid)
        print(f"{os.cpu_count()} cores; {process.memory_info().rss >> 20} MB at the start", flush=True)
        for name, trial in TRIALS.items():
            if options.only not in name:
                continue
            began = time.monotonic()
            try:
                found = trial(server, options.scale)
            except AssertionError as error:
                found = Trial(wrong=[str(error)])
            told = ", ".join(f"{key}: {count}" for key, count in sorted(found.seen.items()))
            print(
                f"{'WRONG' if found.wrong else 'held '}  {name} ({time.monotonic() - began:.0f} s): {told}",
                flush=True,
            )
            for words in sorted(set(found.wrong))[:5]:
                print(f"       {words}", flush=True)
            bad += bool(found.wrong)
            if server.process.poll() is None:
                held = f"{process.memory_info().rss >> 20} MB, {process.num_fds()} descriptors"
                log = f"{process.num_threads()} threads, {server.log.stat().st_size >> 10} kB of log"
                print(f"       {held}, {log}", flush=True)
    print(f"{bad} of the trials went wrong" if bad else "every trial held")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
