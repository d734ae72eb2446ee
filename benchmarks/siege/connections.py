"""Connections that say nothing or too little, and the stop of a server at work."""

import contextlib
import signal
import socket
import time

from benchmarks.siege.client import (
    ANALYSIS,
    FORM,
    KEY,
    PART,
    TIMEOUT,
    Trial,
    alive,
    ask,
    code,
    head,
    health,
    heard,
    line,
)
from tests.support import Server, until


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
