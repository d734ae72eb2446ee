"""Uploads that stop, break off, or declare too much, and forms that are none."""

import contextlib
import shutil
import time
from collections import Counter

from benchmarks.siege.client import (
    ANALYSIS,
    FORM,
    KEY,
    LIMIT,
    PART,
    TIMEOUT,
    Trial,
    abort,
    alive,
    ask,
    code,
    head,
    health,
    heard,
    line,
    post,
    quiet,
)
from tests.support import Server, until


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
