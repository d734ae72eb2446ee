"""The server: one tornado application with the PyWebIO page and the HTTP API over the same `Diagnoser`s.

`main` reads the command line, loads the weights, binds the port and runs until it is told to stop. What is
kept between requests is in `server.state`, the handlers are in `server.http` and `server.uploads`, the page is in
`server.page`.
"""

import argparse
import asyncio
import contextlib
import errno
import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, cast

import pywebio
import tornado.httpserver
import tornado.netutil
import tornado.web
import tornado.websocket
from pywebio.platform.adaptor import ws
from pywebio.platform.tornado import webio_handler
from pywebio.session.threadbased import ThreadBasedSession

from model import Weights, WeightsError, allow_network
from reports import wording
from scans import processes
from scans.read import IMAGES, READERS
from server import http, logs, results, tables, uploads
from server.access import limits
from server.access.callers import Proxy
from server.access.hosts import hosts
from server.access.signin import SignIn
from server.audit import AuditError, AuditLog
from server.folder import Uploads
from server.options import ROOT, parse
from server.page.session import application
from server.state import Pool, ServerState
from studies import STUDIES

RECONNECT = 90  # seconds that a phone may be out of reach before its page is given up
MESSAGE = 1 << 20  # bytes of one websocket message
GRACE = 2.0  # seconds at the stop for answers to leave, and again for work to end

PYWEBIO_FILES = Path(pywebio.__file__).parent / "html"
# What our page loads of PyWebIO's files; the rest (table widgets among it, one of them commercial) is not served.
PYWEBIO = (
    "css/bs-theme/default.min.css",
    "css/app.css",
    "js/mustache.min.js",
    "js/jquery.min.js",
    "js/pywebio.min.js",
)


def page_handler(
    state: ServerState, examples: dict[str, Path | None], pages: limits.OpenPages
) -> type[tornado.web.RequestHandler]:
    """PyWebIO's handler behind our guard. To be made inside the running loop."""
    ThreadBasedSession.event_mq_maxsize = 16
    base = webio_handler(application(state, examples), cdn=False, reconnect_timeout=RECONNECT)

    class Page(http.Guard, base):  # type: ignore[misc, valid-type]  # a class that PyWebIO makes
        async def get(self, *arguments: str) -> None:
            if self.request.headers.get("Upgrade", "").lower() == "websocket":
                await cast(Awaitable[None], super().get(*arguments))
                return
            words = self.settings["words"](self.request)
            self.render("index.html", language=words.language, notice=words("notice"))

        def check(self) -> None:
            if "pywebio_api" in self.request.query_arguments:
                raise http.Refusal(400, "foreign-api", "this page talks to its own server only")
            socket_wanted = self.request.headers.get("Upgrade", "").lower() == "websocket"
            super().check()
            if socket_wanted:
                self.check_origin_header(required=True)
                why = pages.why_not(self.client) if self.is_new else None
                if why:
                    raise http.Refusal(503, "busy", why, **{"Retry-After": "60"})

        @property
        def is_new(self) -> bool:
            return self.get_query_argument("session", "NEW") == "NEW"

        def open(self) -> None:
            self.page: limits.OpenPage | None = None
            if self.is_new and pages.why_not(self.client):  # several came at once
                self.close(1013)
                return
            back = ws._reconnect_state.unclosed_sessions.get(self.get_query_argument("session", ""))
            if back is not None and not pages.belongs_to(back, self.caller):
                self.note_refusal("another-s-page")
                self.close(1008)
                return
            cast(Any, self.request).caller = self.caller  # for the session, which is another thread's
            super().open()
            if self._handler.session is not None:
                key = self.get_cookie(http.COOKIE, "")
                self.page = pages.attach(self._handler.session, self.client, key, self.caller)
                asyncio.get_running_loop().call_later(self.settings["timeout"], self.expect)

        def expect(self) -> None:
            """A page says something as soon as its script runs; what does not is no browser."""
            if self.page is not None and not self.page.spoke:
                pages.close(self.page)
                self.close(1000)

        def on_close(self) -> None:
            if self.page is not None:
                pages.detach(self.page)
            if hasattr(self, "_handler"):
                super().on_close()
            unsent = ws._reconnect_state.session_will_messages  # of pages that never came back: PyWebIO keeps all
            while len(unsent) > limits.PAGES:
                del unsent[next(iter(unsent))]

        def write_error(self, status_code: int, **kwargs) -> None:
            if status_code == 401 and "text/html" in self.request.headers.get("Accept", ""):
                self.redirect("/login", status=303)
                return
            super().write_error(status_code, **kwargs)

        def get_compression_options(self):
            return None

        def write_message(self, message: str | bytes, binary: bool = False) -> None:
            with contextlib.suppress(
                tornado.websocket.WebSocketClosedError
            ):  # it closed meanwhile; `on_close` knows
                super().write_message(message, binary)

        def on_message(self, message: str | bytes) -> None:
            if isinstance(message, bytes):  # only PyWebIO's own file upload sends these, and it is not used
                self.close(1003)
                return
            if self.page is None:
                return
            self.page.spoke = True
            try:
                super().on_message(message)
            except (ValueError, KeyError, TypeError, AttributeError):
                self.close(1007)

    return Page


def make_app(
    options: argparse.Namespace, state: ServerState, password: str | None, examples: dict[str, Path | None]
) -> tornado.web.Application:
    pages = limits.OpenPages()
    routes: list[Any] = [
        (r"/", page_handler(state, examples, pages)),
        *uploads.ROUTES,
        *http.ROUTES,
        *results.ROUTES,
        *tables.ROUTES,
        (
            r"/web/((?:style\.css|page\.js|viewer\.js|outlines\.js|folder\.js|table\.js|before\.js|start\.js))",
            http.Static,
            {"path": str(http.WEB)},
        ),
        (rf"/({'|'.join(map(re.escape, PYWEBIO))})", http.Static, {"path": str(PYWEBIO_FILES)}),
    ]
    return tornado.web.Application(
        routes,
        state=state,
        hosts=hosts(options.host, options.allow_host),
        sign_in=SignIn(password),
        proxy=Proxy(options.proxy_header, options.proxy_from),
        open_pages=pages,
        timeout=options.timeout,
        words=lambda request: wording.Texts(wording.language_of(request.headers.get("Accept-Language", ""))),
        template_path=str(http.WEB / "pages"),
        log_function=http.access,
        default_handler_class=http.Missing,
        websocket_max_message_size=MESSAGE,
        websocket_ping_interval=30,
        debug=False,
    )


def find_example(folder: Path, weights: Weights | None = None) -> Path | None:
    """The scan to try with the weights: the one they name, the picture of their study, or the first volume."""
    named = weights.header.example.get("file") if weights else None
    if named and (folder / Path(named).name).is_file():
        return folder / Path(named).name
    study = weights.study if weights else STUDIES["alzheimers"]
    image = study.contract.kind == "image"
    wanted = tuple(suffix for suffix in READERS if (suffix in IMAGES) == image)
    found = (path for path in folder.glob("*") if path.name.lower().endswith(wanted))
    return min((path for path in found if not image or path.stem == study.key), default=None)


async def serve(
    options: argparse.Namespace, state: ServerState, sockets: list[socket.socket], password: str | None
) -> None:
    """Answer until SIGTERM or Ctrl-C, then leave nothing behind."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:  # Windows: Ctrl-C raises KeyboardInterrupt instead
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    examples = {
        name: options.example or find_example(ROOT / "demodata", diagnoser.weights)
        for name, diagnoser in state.diagnosers.items()
    }
    application = make_app(options, state, password, examples)
    listening = limits.Listening(
        application,
        max_body_size=1 << 16,
        max_header_size=1 << 15,
        idle_connection_timeout=options.timeout,
        body_timeout=options.timeout,
    )
    listening.proxy = application.settings["proxy"]
    listening.descriptors = limits.raise_descriptors()
    loop.set_exception_handler(listening.on_trouble)
    application.settings["listening"] = listening
    listening.add_sockets(sockets)
    port = sockets[0].getsockname()[1]
    shown = "127.0.0.1" if options.host in ("", "0.0.0.0", "::") else options.host
    print(f"Scanwise is ready: http://{shown}:{port}/", flush=True)
    while not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), timeout=min(15, max(1, state.keep / 4)))
        except asyncio.TimeoutError:
            state.keep_house()
    listening.stop()
    state.give_up()
    end = time.monotonic() + GRACE
    while state.waiting or state.arriving:  # each takes its answer away in the loop's next turns
        if time.monotonic() > end:
            break
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)
    state.close()
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(listening.close_all_connections(), GRACE / 2)


def allow(networks: list[str]) -> str:
    """Allow people's own networks; what is wrong with their names, in words."""
    try:
        for name in networks:
            allow_network(name)
    except WeightsError as error:
        return str(error)
    return ""


def read_password(path: Path | None) -> str | None:
    if path is None:
        return None
    password = path.read_text(encoding="utf-8").strip()
    if not password:
        raise ValueError(f"{path}: the password file is empty; write a password in it")
    return password


def bind(host: str, port: int) -> list[socket.socket]:
    try:
        return tornado.netutil.bind_sockets(port, address=host or None)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            why = "is taken" if error.errno == errno.EADDRINUSE else "may not be used by this account"
            raise ValueError(f"port {port} on {host} {why}; choose another with --port") from error
        raise ValueError(f"cannot listen on {host}:{port}: {error.strerror or error}; check --host") from error


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    logs.begin()
    allowed = allow(options.allow_network)
    if allowed:
        print(allowed, file=sys.stderr)
        return 2
    processes.warm()
    folder = None
    try:
        password = read_password(options.password_file)
        sockets = bind(options.host, options.port)
        folder = Uploads(options.uploads, options.max_upload << 20)
        state = ServerState(
            options.weights,
            folder,
            Pool(options.workers, options.queue),
            options.device,
            60 * options.keep,
            options.segmenter,
            options.norms,
            options.precision,
            AuditLog(options.audit) if options.audit else None,
        )
    except (ValueError, OSError, AuditError) as error:
        print(error, file=sys.stderr)
        if folder is not None:
            folder.close()
        return 2
    for problem in state.broken:
        print(f"left out: {problem}", file=sys.stderr)
    if not state.diagnosers:
        print(
            f"{options.weights}: no weights file that can be used; put one in, or make one with `python train.py`",
            file=sys.stderr,
        )
        state.close()
        return 2
    known = password is not None or options.proxy_header
    if options.host not in ("127.0.0.1", "localhost", "::1") and not known:
        print("note: this port can be reached from other machines and no --password-file is set", file=sys.stderr)
    try:
        asyncio.run(serve(options, state, sockets, password))
    finally:
        state.close()
    end = time.monotonic() + GRACE
    while not state.pool.idle() and time.monotonic() < end:  # what does not hear that it should stop ends with us
        time.sleep(0.02)
    processes.POOL.close()
    return 0


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)  # all is put away; the interpreter would wait for threads, and torch takes seconds to go
