"""How much one client may hold: connections, open pages, file descriptors; and what is said past that."""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import tornado.httpserver
import tornado.iostream
import tornado.netutil

from server.access.callers import OPEN, Caller, Proxy
from server.access.signin import network
from studies import to_json

try:
    import resource
except ImportError:  # Windows, which sets no such limit
    resource = None  # type: ignore[assignment]

log = logging.getLogger("scanwise")

CONNECTIONS, CONNECTIONS_A_CLIENT = 512, 128
PAGES, PAGES_A_CLIENT = 64, 16
DESCRIPTORS = 4096  # asked for at the start, where the system allows it
SPARE = 64  # descriptors kept for files, readers and the listening sockets
TURNED_AWAY = 32  # at once in words; past that the line is just cut


def raise_descriptors() -> int:
    """Ask for enough descriptors; what there are now."""
    if resource is None:
        return 8192
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def descriptors_open() -> int | None:
    """How many this process has open, where the system tells."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            return len(os.listdir(folder))  # noqa: PTH208 (a million Paths are dearer than their names)
    return None


class Listening(tornado.httpserver.HTTPServer):
    """tornado's server, with a bound on the connections of one client and of all."""

    descriptors = 8192
    proxy = Proxy()

    def initialize(self, *args: Any, **options: Any) -> None:
        super().initialize(*args, **options)
        self.streams: dict[tornado.iostream.IOStream, str] = {}
        self._leaving: set[asyncio.Task] = set()

    @property
    def most(self) -> int:
        return max(8, min(CONNECTIONS, self.descriptors // 2))

    def count(self) -> int:
        """Open connections, websockets too, which tornado itself lets go of."""
        self.streams = {stream: client for stream, client in self.streams.items() if not stream.closed()}
        return len(self.streams)

    def handle_stream(self, stream: tornado.iostream.IOStream, address: tuple) -> None:
        host = str(address[0]) if address else ""
        client = network(host)
        if self.count() >= self.most or stream.socket.fileno() >= self.descriptors - SPARE:
            self.turn_away(stream, "too many connections are open; try again in a minute")
        elif not self.proxy.is_at(host) and Counter(self.streams.values())[client] >= self.a_client:
            self.turn_away(stream, "your machine has too many connections open; close some of its pages")
        else:
            self.streams[stream] = client
            super().handle_stream(stream, address)

    def start_request(self, server_conn: object, request_conn: Any) -> Any:
        """What headers tell of a client's address is believed from the proxy alone."""
        address = request_conn.context.address
        self.xheaders = isinstance(address, tuple) and self.proxy.is_at(str(address[0]))
        return super().start_request(server_conn, request_conn)

    @property
    def a_client(self) -> int:
        return max(4, min(CONNECTIONS_A_CLIENT, self.most // 4))

    def turn_away(self, stream: tornado.iostream.IOStream, words: str) -> None:
        if len(self._leaving) >= TURNED_AWAY:
            stream.close()
            return
        task = asyncio.ensure_future(self._turn_away(stream, words))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _turn_away(self, stream: tornado.iostream.IOStream, words: str) -> None:
        """Hear the request's head first: who is cut off while sending does not read the answer."""
        body = to_json({"error": {"code": "busy", "message": words}}).encode()
        head = (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json; charset=UTF-8\r\n"
            f"Content-Length: {len(body)}\r\nRetry-After: 60\r\nConnection: close\r\n\r\n"
        )
        try:
            await asyncio.wait_for(stream.read_until(b"\r\n\r\n", max_bytes=1 << 15), 1)
            await asyncio.wait_for(stream.write(head.encode() + body), 1)
        except (tornado.iostream.StreamClosedError, asyncio.TimeoutError):
            pass  # nothing to be said to this one
        finally:
            stream.close()

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        for sock in sockets:
            self._sockets[sock.fileno()] = sock
            self._handlers[sock.fileno()] = tornado.netutil.add_accept_handler(sock, self._handle_connection)

    def on_trouble(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The loop's exception handler: with no descriptors left, accept nobody for a second."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE):
            loop.default_exception_handler(context)
            return
        log.warning("no file descriptors left; new connections wait for a second")
        for number in self._sockets:
            self._handlers.pop(number, lambda: None)()
        loop.call_later(1, self._again)

    def _again(self) -> None:
        missing = [sock for number, sock in self._sockets.items() if number not in self._handlers]
        if not self._stopped:
            self.add_sockets(missing)


# --- pages ---------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class OpenPage:
    """A page's session, whose it is, and since when its line is gone (None while it is there)."""

    session: Any  # PyWebIO's
    address: str
    visitor: str  # the key of its cookie
    caller: Caller = OPEN
    spoke: bool = False
    lost: float | None = None


class OpenPages:
    """The pages that are open or may come back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.pages: dict[int, OpenPage] = {}  # by the session's identity

    def _prune(self) -> None:
        self.pages = {key: page for key, page in self.pages.items() if not page.session.closed()}

    def why_not(self, address: str) -> str | None:
        """Why another page cannot be opened from this address. Pages whose line is gone make way first."""
        self._prune()
        client = network(address)
        for most, words, mine in (
            (PAGES_A_CLIENT, "your machine has too many pages open; close some of them", True),
            (PAGES, "too many pages are open; try again in a minute", False),
        ):
            counted = [page for page in self.pages.values() if not mine or page.address == client]
            gone = sorted((page for page in counted if page.lost is not None), key=lambda page: page.lost or 0.0)
            while len(counted) >= most and gone:
                page = gone.pop(0)
                counted.remove(page)
                self.close(page)
            if len(counted) >= most:
                return words
        return None

    def belongs_to(self, session: Any, caller: Caller) -> bool:
        """Whether a session that a line comes back to is that caller's; one that is not known is nobody's."""
        page = self.pages.get(id(session))
        return page is None or page.caller == caller

    def attach(self, session: Any, address: str, visitor: str, caller: Caller = OPEN) -> OpenPage:
        """A line to a session, new or come back."""
        page = self.pages.setdefault(id(session), OpenPage(session, network(address), visitor, caller))
        page.lost = None
        return page

    def detach(self, page: OpenPage) -> None:
        page.lost = self.clock()

    def close(self, page: OpenPage) -> None:
        """End its session; a browser that is still there is told, and tries no more to come back."""
        self.pages.pop(id(page.session), None)
        if not page.session.closed():
            page.session.send_task_command({"command": "close_session", "task_id": "", "spec": None})
            page.session._on_task_command(page.session)  # now: closing drops what is still to be sent
            page.session.close(nonblock=True)

    def sign_out(self, visitor: str) -> None:
        """Close every page of a browser that signs out."""
        for page in [page for page in self.pages.values() if visitor and page.visitor == visitor]:
            self.close(page)
