"""Guesses at the password, and signing out."""

import base64
import re

from benchmarks.siege.client import KEY, PASSWORD, Trial, ask, head
from tests.support import Server


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
