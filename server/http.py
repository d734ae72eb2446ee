"""The HTTP side: guards, streamed uploads, the API, and what a result's page fetches. No page is built here.

Every handler stands on `Guard`, which checks host, origin and password and sets the security headers.
Files stream to disk as they arrive; what needs the processor goes through the state's pool.
"""

import asyncio
import base64
import hmac
import ipaddress
import json
import logging
import secrets
import socket
import threading
import time
import urllib.parse
from pathlib import Path

import prometheus_client as prometheus
import tornado.web

from diagnosis.diagnoser import VERSION
from scans.scan import ScanError
from server import payloads
from server.state import Busy, Cancelled, ServerState, failure
from studies import NOTICE, to_record

log = logging.getLogger("scanwise.access")

WEB = Path(__file__).resolve().parent.parent / "web"
CSP = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; manifest-src 'self' data:; connect-src 'self'; object-src 'none'; "
    "frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
)
REPORT_CSP = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'"
)
COOKIE = "scanwise"


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

    @property
    def state(self) -> ServerState:
        return self.settings["state"]

    def set_default_headers(self) -> None:
        self.set_header("Content-Security-Policy", CSP)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("X-Frame-Options", "DENY")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        self.set_header("Server", "Scanwise")

    def prepare(self) -> None:
        self.refusal: Refusal | None = None
        try:
            self.check()
        except Refusal as refusal:
            if not self.streamed:
                raise
            self.refusal = refusal

    def check(self) -> None:
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
        if not self.open_to_all and not self.admitted():
            raise Refusal(
                401,
                "password",
                "a password is needed: sign in on the page, or send it by HTTP Basic",
                **{"WWW-Authenticate": 'Basic realm="Scanwise", charset="UTF-8"'},
            )

    def check_origin_header(self, required: bool) -> None:
        origin = self.request.headers.get("Origin")
        if origin is None and not required:
            return
        if urllib.parse.urlparse(origin or "").netloc.lower() != self.request.headers.get("Host", "").lower():
            raise Refusal(403, "foreign-origin", "requests from other sites' pages are not answered")

    def admitted(self) -> bool:
        password = self.settings["password"]
        if password is None:
            return True
        if self.get_cookie(COOKIE, "") in self.settings["visitors"]:
            return True
        kind, _, value = self.request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "basic":
            try:
                value = base64.b64decode(value, validate=True).decode().partition(":")[2]
            except ValueError:  # UnicodeDecodeError and binascii.Error alike
                return False
        elif kind.lower() != "bearer":
            return False
        return hmac.compare_digest(value.encode(), password.encode())

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
        self.finish(json.dumps({"error": answer}, ensure_ascii=False))

    def log_exception(self, typ, value, tb) -> None:
        """Nothing: `write_error` has logged what was unforeseen, under its id."""

    def answer(self, value, status: int = 200) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(value, ensure_ascii=False))


def host_allowed(host: str, allowed: frozenset[str]) -> bool:
    """Names on the list, and plain addresses: a rebound name is what an attacker has, never an address."""
    try:
        name = urllib.parse.urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name in allowed:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or "*" in allowed


def hosts(bound: str, extra: list[str]) -> frozenset[str]:
    """The names that a server bound to `bound` answers to; "*" stands for any plain address."""
    names = {"localhost", bound.lower(), *(name.lower() for name in extra)}
    if bound in ("", "0.0.0.0", "::"):
        names |= {"*", socket.gethostname().lower()}
    return frozenset(names - {""})


def access(handler: tornado.web.RequestHandler) -> None:
    """One line a request: method, the first step of its path, status, time. No names, no keys, no addresses."""
    if getattr(handler, "quiet", False) and handler.get_status() < 400:
        return
    step = handler.request.path.split("/")[1][:20]
    log.info(
        "%s /%s %d %.0f ms",
        handler.request.method,
        step,
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
        self.answer(
            {
                "live": True,
                "ready": not self.state.pool.full,
                "queue": self.state.pool.length,
                "device": str(first.weights.device),
                "version": VERSION,
            }
        )


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
        if session is not None:
            session.close()
        self.set_status(204)


class OfResult(Guard):
    """What a result's page fetches by the result's key: the volume, heat maps, reports."""

    def result(self, key: str):
        result = self.state.results.get(key)
        if result is None or result.refused:
            raise Refusal(404, "gone", "this result is no longer kept; open the scan again")
        return result

    async def work(self, job):
        """Run `job` in the pool; a full queue is told as on the API."""
        try:
            return await asyncio.wrap_future(self.state.pool.submit(lambda _: job()).future)
        except Busy as busy:
            raise Refusal(503, "busy", str(busy), **{"Retry-After": "5"}) from busy
        except ScanError as error:
            raise Refusal(404, "gone", "this scan is no longer kept; open it again") from error


class Volume(OfResult):
    async def get(self, key: str) -> None:
        result = self.result(key)
        body = await self.work(lambda: payloads.volume(self.state.diagnosis(result)))
        self.send(body)

    def send(self, body: bytes) -> None:
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("Content-Encoding", "gzip")
        self.set_header("Cache-Control", "private, max-age=600")
        self.finish(body)


class HeatMap(Volume):
    """`/results/KEY/map?method=…&code=…`, for the viewer, or as `.nii.gz` and `.png` to take away."""

    async def get(self, key: str, suffix: str | None = None) -> None:
        result = self.result(key)
        diagnoser = self.state.diagnosers[result.weights]
        method = self.get_query_argument("method", "grad-cam")
        code = self.get_query_argument("code", result.record["label"] or diagnoser.study.codes[0])
        if method not in payloads.methods() or code not in diagnoser.study.codes:
            raise Refusal(422, "unknown-map", f"no map {method[:40]!r} of {code[:40]!r}")
        self.left = threading.Event()
        heard = self.state.progress

        def progress(done: float) -> None:
            if self.left.is_set() or key not in self.state.results:
                raise Cancelled
            heard[key] = done

        def job() -> bytes:
            diagnosis = self.state.diagnosis(result)
            found = diagnoser.explain(diagnosis, method, code, progress=progress)
            return payloads.MAPS[suffix or ""](diagnosis, found)

        try:
            body = await self.work(job)
        except Cancelled:
            return
        finally:
            heard.pop(key, None)
        if suffix is None:
            self.send(body)
            return
        self.set_header("Content-Type", {"nii.gz": "application/gzip", "png": "image/png"}[suffix])
        self.set_header("Content-Disposition", f'attachment; filename="scanwise-{method}-{code}.{suffix}"')
        self.finish(body)

    def on_connection_close(self) -> None:
        if hasattr(self, "left"):
            self.left.set()


class Progress(OfResult):
    quiet = True

    def get(self, key: str) -> None:
        self.answer({"done": self.state.progress.get(key)})


class Report(OfResult):
    async def get(self, key: str, kind: str) -> None:
        result = self.result(key)
        language = self.get_query_argument("language", "en")
        diagnoser = self.state.diagnosers[result.weights]
        if kind == "json":
            self.set_header("Content-Disposition", 'attachment; filename="scanwise.json"')
            self.answer(result.record)
            return
        body = await self.work(lambda: payloads.report(diagnoser, self.state.diagnosis(result), kind, language))
        self.set_header("Content-Type", payloads.REPORTS[kind])
        self.set_header("Content-Security-Policy", REPORT_CSP)
        stamp = time.strftime("%Y%m%d-%H%M")
        self.set_header("Content-Disposition", f'attachment; filename="scanwise-{stamp}.{kind}"')
        self.finish(body)


class Login(Guard):
    open_to_all = True

    def get(self) -> None:
        self.form(wrong=False)

    async def post(self) -> None:
        given, password = self.get_body_argument("password", ""), self.settings["password"] or ""
        if hmac.compare_digest(given.encode(), password.encode()):
            key = secrets.token_urlsafe(24)
            self.settings["visitors"].add(key)
            self.set_cookie(
                COOKIE, key, httponly=True, samesite="Strict", path="/", secure=self.request.protocol == "https"
            )
            self.redirect("/")
            return
        await asyncio.sleep(0.5)  # guessing stays slow
        self.set_status(401)
        self.form(wrong=True)

    def form(self, wrong: bool) -> None:
        words = self.settings["words"](self.request)
        self.render("login.html", wrong=wrong, t=words, language=words.language)


class Static(Guard, tornado.web.StaticFileHandler):
    open_to_all = True

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
    (r"/results/([\w-]+)/volume", Volume),
    (r"/results/([\w-]+)/map(?:\.(nii\.gz|png))?", HeatMap),
    (r"/results/([\w-]+)/progress", Progress),
    (r"/results/([\w-]+)/report\.(html|pdf|json)", Report),
    (r"/login", Login),
]
