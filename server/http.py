"""The HTTP side: the guard before every handler, and what the server tells of itself. No page is built here.

Every handler stands on `Guard`, which checks host, origin and password and sets the security headers.
Files stream to disk as they arrive; what needs the processor goes through the state's pool.
"""

import asyncio
import base64
import contextlib
import functools
import json
import logging
import math
import urllib.parse
from pathlib import Path
from typing import Any, cast

import prometheus_client as prometheus
import tornado.web

from diagnosis.diagnoser import VERSION
from server.access import limits
from server.access.callers import NOBODY, OPEN, PASSWORD, Caller, NotFromProxy, Proxy
from server.access.hosts import host_allowed
from server.access.signin import LASTS
from server.audit import AuditError
from server.state import Cancelled, ServerState, failure
from studies import NOTICE, to_json, to_record

log = logging.getLogger("scanwise.access")

WEB = Path(__file__).resolve().parent.parent / "web"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
)
REPORT_CSP = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'"
)
COOKIE = "scanwise"
REFUSED = (400, 401, 403, 421, 429)  # statuses of the guard that are written down


class Refusal(tornado.web.HTTPError):
    """A refusal with a code and a sentence, answered as JSON."""

    def __init__(self, status: int, code: str, message: str, **headers: str):
        super().__init__(status, reason=None)
        self.code, self.message, self.headers = code, message, headers


class Guard(tornado.web.RequestHandler):
    """What stands before every handler: headers, host, origin, password, and errors in words."""

    open_to_all = False  # True: no password asked
    quiet = False  # True: no line in the access log, for what is asked every second
    streamed = False  # True: a refusal waits until the body has been read
    kept = False  # True: the browser may keep the answer

    @property
    def state(self) -> ServerState:
        return self.settings["state"]

    def set_default_headers(self) -> None:
        self.set_header("Content-Security-Policy", CSP)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("X-Frame-Options", "DENY")
        self.set_header("Referrer-Policy", "same-origin")  # with none, a form's own origin would come as "null"
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        self.set_header("Server", "Scanwise")
        if not self.kept:
            self.set_header("Cache-Control", "no-store")

    def prepare(self) -> None:
        self.refusal: Refusal | None = None
        self.caller = NOBODY
        try:
            self.check()
        except Refusal as refusal:
            tried = self.request.method != "GET" or "Authorization" in self.request.headers
            if refusal.status_code in REFUSED and (tried or refusal.status_code != 401):
                self.note_refusal(refusal.code)
            if not self.streamed:
                raise
            self.refusal = refusal

    def head(self, *arguments: str, **named: str):
        """As GET; tornado leaves the body out."""
        return self.get(*arguments, **named)

    def check(self) -> None:
        if self.state.stopping:
            raise stopping()
        host = self.request.headers.get("Host", "")
        if not host_allowed(host, self.settings["hosts"]):
            raise Refusal(
                421,
                "foreign-host",
                f"this server does not answer to the name {host[:80]!r}; "
                "start it with --allow-host NAME if it should",
            )
        if self.request.method not in ("GET", "HEAD"):
            self.check_origin_header(required=False)
        self.caller = self.who()
        if not self.open_to_all and self.caller == NOBODY:
            raise self.nobody()

    @property
    def peer(self) -> str:
        """The address at the line's other end, whatever a header says."""
        address = cast(Any, self.request.connection).context.address
        return str(address[0]) if isinstance(address, tuple) and address else ""

    @property
    def client(self) -> str:
        """Who is counted as one: a person whom the proxy names, else an address."""
        return f"person {self.caller.who}" if self.caller.by == "proxy" else self.request.remote_ip or ""

    def who(self) -> Caller:
        """Who asks; Refusal where what says so cannot be believed.

        From the proxy its header decides, and no password is looked at; from elsewhere the password, where there
        is one. With a proxy and no password nobody is admitted from elsewhere.
        """
        proxy: Proxy = self.settings["proxy"]
        try:
            found = proxy.caller(self.peer, self.request.headers.get_list(proxy.header or ""))
        except NotFromProxy as error:
            if error.code == "no-person" and self.open_to_all and self.request.method in ("GET", "HEAD"):
                return NOBODY
            raise Refusal(403, error.code, str(error)) from error
        if found is not None:
            return found
        if not self.settings["sign_in"].needed:
            return NOBODY if proxy.header else OPEN
        return PASSWORD if self.admitted() else NOBODY

    def nobody(self) -> Refusal:
        """The refusal of who is not known."""
        if not self.settings["sign_in"].needed:
            return Refusal(403, "not-by-proxy", "this server is reached through its proxy alone; sign in there")
        return Refusal(
            401,
            "password",
            "a password is needed: sign in on the page, or send it by HTTP Basic",
            **{"WWW-Authenticate": 'Basic realm="Scanwise", charset="UTF-8"'},
        )

    # --- what is written down ----------------------------------------------------------------------------

    async def note(self, *events: dict[str, Any]) -> None:
        """Have it on the disk before it is answered; Refusal where that cannot be."""
        if self.state.audit is None:
            return
        work = functools.partial(self.state.note, self.caller, *events)
        try:
            await asyncio.get_running_loop().run_in_executor(None, work)
        except AuditError as error:
            raise unrecorded(error) from error

    def note_refusal(self, code: str) -> None:
        """A refusal stands also where it cannot be written down."""
        if self.state.audit is not None:
            with contextlib.suppress(AuditError):
                self.state.audit.refused(self.caller, code)

    def check_origin_header(self, required: bool) -> None:
        origin = self.request.headers.get("Origin")
        if origin is None and not required:
            return
        if urllib.parse.urlparse(origin or "").netloc.lower() != self.request.headers.get("Host", "").lower():
            raise Refusal(403, "foreign-origin", "requests from other sites' pages are not answered")

    def admitted(self) -> bool:
        """Whether the password came, or the key of a browser that gave it."""
        if self.settings["sign_in"].knows(self.get_cookie(COOKIE, "")):
            return True
        kind, _, value = self.request.headers.get("Authorization", "").partition(" ")
        given = value.encode("latin-1", "replace")  # as tornado took the bytes of the header for text
        if kind.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except ValueError:  # binascii.Error
                return False
        elif kind.lower() != "bearer":
            return False
        return self.guess(given)

    def guess(self, given: bytes) -> bool:
        """Whether this is the password; Refusal where too many wrong ones came before it."""
        sign_in, address = self.settings["sign_in"], self.request.remote_ip or ""
        wait = math.ceil(sign_in.wait(address))
        if wait:
            raise Refusal(
                429,
                "too-many-tries",
                f"too many wrong passwords; try again in {wait} s",
                **{"Retry-After": str(wait)},
            )
        return sign_in.right(given, address)

    async def answer_of(self, job):
        """What the pool's job gives; a server that stops meanwhile says so."""
        future = asyncio.wrap_future(job.future)
        self.state.waiting.add(future)
        try:
            return await future
        except (asyncio.CancelledError, Cancelled) as error:
            if self.state.stopping:
                raise stopping() from error
            raise Cancelled from error
        finally:
            self.state.waiting.discard(future)

    def write_error(self, status_code: int, **kwargs) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, Refusal):
            for name, value in error.headers.items():
                self.set_header(name, value)
            answer = {"code": error.code, "message": error.message}
        elif isinstance(error, tornado.web.HTTPError):
            answer = {"code": f"http-{status_code}", "message": f"{status_code} {self._reason}"}
        else:
            number = failure(error)
            answer = {"code": "internal", "message": f"something went wrong here; error id {number}", "id": number}
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        if not self._finished:
            self.finish(to_json({"error": answer}))

    def log_exception(self, typ, value, tb) -> None:
        """Nothing: `write_error` has logged what was unforeseen, under its id."""

    def answer(self, value, status: int = 200) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.finish(to_json(value))


def stopping() -> Refusal:
    words = "the server is being stopped; try again in a minute"
    return Refusal(503, "stopping", words, **{"Retry-After": "60", "Connection": "close"})


def unrecorded(error: AuditError) -> Refusal:
    return Refusal(503, "not-recorded", error.words)


def access(handler: tornado.web.RequestHandler) -> None:
    """One line a request: method, the first step of its path, status, time. No names, no keys, no addresses."""
    if getattr(handler, "quiet", False) and handler.get_status() < 400:
        return
    step = handler.request.path.partition("/")[2].partition("/")[0] if not isinstance(handler, Missing) else "?"
    log.info(
        "%s /%s %d %.0f ms",
        handler.request.method,
        step[:20],
        handler.get_status(),
        1000 * handler.request.request_time(),
    )


class Studies(Guard):
    def get(self) -> None:
        self.answer(
            [
                {
                    "weights": {
                        "name": name,
                        "sha256": diagnoser.weights.sha256,
                        "title": diagnoser.weights.header.title,
                    },
                    "study": to_record(diagnoser.study),
                    "notice": NOTICE,
                    "scores": diagnoser.weights.header.scores or None,
                }
                for name, diagnoser in self.state.diagnosers.items()
            ]
        )


class Health(Guard):
    open_to_all = True

    def get(self) -> None:
        first = next(iter(self.state.diagnosers.values()))
        trouble = self.state.uploads.trouble or self.state.unrecorded
        listening = self.settings.get("listening")
        answer = {
            "live": True,
            "ready": not self.state.pool.full and trouble is None,
            "queue": self.state.pool.length,
            "device": str(first.weights.device),
            "version": VERSION,
            "trouble": trouble,
        }
        if listening is not None:
            answer["connections"] = {"open": listening.count(), "most": listening.most}
            answer["descriptors"] = {"open": limits.descriptors_open(), "most": listening.descriptors}
        self.answer(answer)


class Metrics(Guard):
    def get(self) -> None:
        self.set_header("Content-Type", prometheus.CONTENT_TYPE_LATEST)
        self.finish(prometheus.generate_latest(self.state.registry))


class OpenApi(Guard):
    def get(self) -> None:
        self.answer(json.loads((WEB / "openapi.json").read_text(encoding="utf-8")))


class Bye(Guard):
    """`POST /bye/TOKEN`: the page says that it closes, so that nothing waits for it to come back."""

    def post(self, token: str) -> None:
        session = self.state.pages.get(token)
        if session is not None and session.caller == self.caller:
            session.close()
        self.set_status(204)


class Login(Guard):
    open_to_all = True

    def get(self) -> None:
        self.form(wrong="")

    async def post(self) -> None:
        sign_in = self.settings["sign_in"]
        try:
            right = not sign_in.needed or self.guess(self.get_body_argument("password", "").encode())
        except Refusal as refusal:
            self.note_refusal(refusal.code)
            self.set_status(429)
            self.set_header("Retry-After", refusal.headers["Retry-After"])
            self.form(wrong="login.wait")
            return
        if right:
            if sign_in.needed:
                self.caller = PASSWORD
                await self.note({"what": "signed in"})
            self.set_cookie(
                COOKIE,
                sign_in.enter(),
                httponly=True,
                samesite="Strict",
                path="/",
                secure=self.request.protocol == "https",
                max_age=int(LASTS),
            )
            self.redirect("/")
            return
        self.note_refusal("password")
        self.set_status(401)
        self.form(wrong="login.wrong")

    def form(self, wrong: str) -> None:
        words = self.settings["words"](self.request)
        self.render("login.html", wrong=wrong, t=words, language=words.language)


class Logout(Guard):
    """`POST /logout`: the browser's key is worth nothing from now on, and its pages close.

    That is done also where it cannot be written down, which is then told.
    """

    open_to_all = True

    async def post(self) -> None:
        key = self.get_cookie(COOKIE, "")
        self.settings["sign_in"].leave(key)
        self.settings["open_pages"].sign_out(key)
        self.clear_cookie(COOKIE, path="/")
        if self.caller == PASSWORD:
            await self.note({"what": "signed out"})
        self.redirect("/login", status=303)


class Static(Guard, tornado.web.StaticFileHandler):
    open_to_all = True
    kept = True

    def set_extra_headers(self, path: str) -> None:
        self.set_header("Cache-Control", "no-cache")


class Missing(Guard):
    open_to_all = True

    def prepare(self) -> None:
        super().prepare()
        raise Refusal(404, "no-such-page", "there is nothing at this address; /openapi.json lists what is")


ROUTES = [
    (r"/studies", Studies),
    (r"/healthz", Health),
    (r"/metrics", Metrics),
    (r"/openapi.json", OpenApi),
    (r"/bye/([\w-]+)", Bye),
    (r"/login", Login),
    (r"/logout", Logout),
]
