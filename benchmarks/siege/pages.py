"""Pages over websockets: silent ones, odd messages, and the files that they send."""

import contextlib
import random
import re
import socket
import time

from benchmarks.siege.client import KEY, LIMIT, TIMEOUT, Trial, alive, ask, code, head, heard, line, server_metric
from tests.support import Server, until


def upgrade(
    server: Server, source: str, lines: contextlib.ExitStack, session: str = "NEW"
) -> tuple[socket.socket, str]:
    """A line that asked to be a page's websocket, and the status of the answer."""
    connection, data = asked(server, source, lines, session)
    return connection, data[9:12].decode()


def asked(
    server: Server, source: str, lines: contextlib.ExitStack, session: str = "NEW"
) -> tuple[socket.socket, bytes]:
    """The same with all that came at once: the page's first words may lie right behind the answer's head."""
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
    return connection, connection.recv(1 << 16)


def opened_page(server: Server, source: str, lines: contextlib.ExitStack) -> str:
    """The token of a page that says a word and stays."""
    connection, data = asked(server, source, lines)
    connection.sendall(message(b'{"event": "none", "task_id": "none", "data": null}'))
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
