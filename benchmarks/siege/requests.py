"""Request lines and headers that are none, and files that are not served."""

import random
import re

from benchmarks.siege.client import KEY, TIMEOUT, Trial, alive, ask, head
from tests.support import Server


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
