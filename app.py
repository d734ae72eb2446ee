"""The server: one tornado application with the PyWebIO page and the HTTP API over the same `Diagnoser`s.

`main` reads the command line, loads the weights, binds the port and runs until it is told to stop. What is
kept between requests is in `state`, the handlers are in `server` and `receive`, the page is in `page`.
"""

import argparse
import asyncio
import errno
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import pywebio
import tornado.httpserver
import tornado.netutil
import tornado.web
from pywebio.platform.tornado import webio_handler
from pywebio.session.threadbased import ThreadBasedSession

from model import Weights
from reports import wording
from scans import processes
from scans.read import IMAGES, READERS
from server import http, page, uploads
from server.state import Pool, ServerState, Uploads

RECONNECT = 90  # seconds that a phone may be out of reach before its page is given up
SESSIONS = 64  # pages open at once
MESSAGE = 1 << 20  # bytes of one websocket message

ROOT = Path(__file__).resolve().parent
log = logging.getLogger("scanwise")


def page_handler(state: ServerState, examples: dict[str, Path | None]) -> type[tornado.web.RequestHandler]:
    """PyWebIO's handler behind our guard. To be made inside the running loop."""
    ThreadBasedSession.event_mq_maxsize = 16
    base = webio_handler(page.application(state, examples), cdn=False, reconnect_timeout=RECONNECT)

    class Page(http.Guard, base):
        def check(self) -> None:
            if "pywebio_api" in self.request.query_arguments:
                raise http.Refusal(400, "foreign-api", "this page talks to its own server only")
            socket_wanted = self.request.headers.get("Upgrade", "").lower() == "websocket"
            super().check()
            if socket_wanted:
                self.check_origin_header(required=True)
                if len(state.pages) >= SESSIONS:
                    raise http.Refusal(
                        503, "busy", "too many pages are open; try again in a minute", **{"Retry-After": "60"}
                    )

        def write_error(self, status_code: int, **kwargs) -> None:
            if status_code == 401 and "text/html" in self.request.headers.get("Accept", ""):
                self.redirect("/login", status=303)
                return
            super().write_error(status_code, **kwargs)

        def get_compression_options(self):
            return None

        def on_message(self, message: str | bytes) -> None:
            if isinstance(message, bytes):  # only PyWebIO's own file upload sends these, and it is not used
                self.close(1003)
                return
            try:
                super().on_message(message)
            except (ValueError, KeyError, TypeError, AttributeError):
                self.close(1007)

    return Page


def make_app(
    state: ServerState, host: str, extra_hosts: list[str], password: str | None, examples: dict[str, Path | None]
) -> tornado.web.Application:
    static = Path(pywebio.__file__).parent / "html"
    routes = [
        (r"/", page_handler(state, examples)),
        *uploads.ROUTES,
        *http.ROUTES,
        (r"/web/((?:style\.css|page\.js|viewer\.js))", http.Static, {"path": str(http.WEB)}),
        (r"/((?:css|js|codemirror|image)/.+)", http.Static, {"path": str(static)}),
    ]
    return tornado.web.Application(
        routes,
        state=state,
        hosts=http.hosts(host, extra_hosts),
        password=password,
        visitors=set(),
        words=lambda request: wording.Texts(wording.language_of(request.headers.get("Accept-Language", ""))),
        template_path=str(http.WEB / "pages"),
        log_function=http.access,
        default_handler_class=http.Missing,
        websocket_max_message_size=MESSAGE,
        websocket_ping_interval=30,
        debug=False,
    )


def find_example(folder: Path, weights: Weights | None = None) -> Path | None:
    """The scan to try with the weights: the one that they name, or the folder's first of the right kind."""
    named = weights.header.example.get("file") if weights else None
    if named and (folder / Path(named).name).is_file():
        return folder / Path(named).name
    image = weights is not None and weights.contract.kind == "image"
    wanted = tuple(suffix for suffix in READERS if (suffix in IMAGES) == image)
    return min((path for path in folder.glob("*") if path.name.lower().endswith(wanted)), default=None)


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
    application = make_app(state, options.host, options.allow_host, password, examples)
    listening = tornado.httpserver.HTTPServer(
        application, max_body_size=1 << 16, max_header_size=1 << 15, idle_connection_timeout=300
    )
    listening.add_sockets(sockets)
    port = sockets[0].getsockname()[1]
    shown = "127.0.0.1" if options.host in ("", "0.0.0.0", "::") else options.host
    print(f"Scanwise is ready: http://{shown}:{port}/", flush=True)
    while not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), timeout=min(60, max(1, state.keep / 4)))
        except asyncio.TimeoutError:
            state.purge()
    listening.stop()
    state.close()
    await listening.close_all_connections()


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serve the page and the HTTP API.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port, 0 for any free one (%(default)s)")
    parser.add_argument(
        "--weights",
        type=Path,
        default=ROOT / "weights",
        metavar="DIR",
        help="folder of weights files (%(default)s)",
    )
    parser.add_argument(
        "--example", type=Path, metavar="FILE", help="scan that the page offers to try (the first in demodata/)"
    )
    parser.add_argument(
        "--uploads",
        type=Path,
        default=ROOT / "uploaded_img",
        metavar="DIR",
        help="folder for scans in flight; emptied at start (%(default)s)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (%(default)s)")
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        default=max(1, min(4, (os.cpu_count() or 2) // 2)),
        help="scans worked on at once (%(default)s)",
    )
    parser.add_argument("--queue", type=int, default=8, metavar="N", help="scans that may wait (%(default)s)")
    parser.add_argument("--max-upload", type=int, default=300, metavar="MB", help="largest file (%(default)s)")
    parser.add_argument(
        "--keep",
        type=float,
        default=60,
        metavar="MINUTES",
        help="longest time that an upload is kept (%(default)s)",
    )
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="ask for the password in this file")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name that this server answers to, such as that of a proxy before it",
    )
    options = parser.parse_args(argv)
    for name in ("workers", "max_upload", "keep"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} {getattr(options, name)}: give a number above 0")
    return options


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
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    processes.warm()
    try:
        password = read_password(options.password_file)
        sockets = bind(options.host, options.port)
        uploads = Uploads(options.uploads, options.max_upload << 20)
        state = ServerState(
            options.weights, uploads, Pool(options.workers, options.queue), options.device, 60 * options.keep
        )
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    for problem in state.broken:
        print(f"left out: {problem}", file=sys.stderr)
    if not state.diagnosers:
        print(
            f"{options.weights}: no weights file that can be used; put one in, or make one with `python train.py`",
            file=sys.stderr,
        )
        return 2
    if options.host not in ("127.0.0.1", "localhost", "::1") and password is None:
        print("note: this port can be reached from other machines and no --password-file is set", file=sys.stderr)
    asyncio.run(serve(options, state, sockets, password))
    return 0


if __name__ == "__main__":
    sys.exit(main())
