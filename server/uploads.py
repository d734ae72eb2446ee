"""What pages send: raw uploads of an open page, and the API's multipart forms, both streamed to disk.

A body never lies in memory: its pieces go to a generated name under the uploads folder as they arrive. A
refusal found on the way is answered once the body is through, so that the sender gets to hear it.
"""

import asyncio
import time
import urllib.parse
from typing import cast

import tornado.web
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from tornado.http1connection import HTTP1Connection

from diagnosis.anatomy.norms import NOBODY, NormsError, Person, person
from diagnosis.diagnoser import error_record
from networks.dropout import PASSES
from reports.wording import languages
from scans.scan import ScanError
from server import payloads
from server.answers import Asked, each
from server.audit import AuditError
from server.folder import NoRoom, Upload
from server.forms import Form, close
from server.http import REPORT_CSP, Guard, Refusal, stopping, unrecorded
from server.state import Busy, Cancelled, Job

SLACK = 64 << 20  # bytes past the limit that are still read and dropped, so that the refusal can be heard
SLOWEST = 16 << 10  # bytes a second on the average, below which a body is given up


@tornado.web.stream_request_body
class Streamed(Guard):
    """Receives a body piece by piece, up to a limit; a refusal is answered once the body is through.

    A body that stops on the way, or crawls, is given up and told so.
    """

    streamed = True
    parts = 1  # how many times one file's limit the whole body may hold

    def prepare(self) -> None:
        super().prepare()
        self.received = self.wasted = self.promised = 0
        self.uploads: list[Upload] = []
        self.job: Job | None = None
        self.limit = self.parts * self.state.uploads.limit
        connection = cast(HTTP1Connection, self.request.connection)
        connection.set_max_body_size(self.limit + SLACK)
        connection.set_body_timeout(self.patience + (self.limit + SLACK) / SLOWEST)
        self.began = self.heard = time.monotonic()
        declared = self.request.headers.get("Content-Length", "")
        self.declared = int(declared) if declared.isdigit() else None
        if self.declared is not None and self.declared > self.limit + SLACK:
            raise self.too_large()
        self.state.arriving.add(self)
        self.watch()
        try:
            if self.refusal is None:
                self.begin()
        except Refusal as refusal:
            self.refusal = refusal

    @property
    def patience(self) -> float:
        """Seconds that a body may be silent."""
        return self.settings["timeout"]

    def too_large(self) -> Refusal:
        megabytes = self.state.uploads.limit >> 20
        return Refusal(
            413,
            "too-large",
            f"a file may have {megabytes} MB; crop or compress the scan, or start "
            "the server with a larger --max-upload",
        )

    def begin(self) -> None:
        raise NotImplementedError

    def take(self, chunk: bytes) -> None:
        raise NotImplementedError

    # --- room and time -----------------------------------------------------------------------------------

    def reserve(self, size: int) -> None:
        """Have room promised for `size` bytes of this body before they come."""
        try:
            self.state.uploads.reserve(self, size)
        except NoRoom as error:
            raise no_room(error) from error
        self.promised = size

    def watch(self) -> None:
        self.watching = asyncio.get_running_loop().call_later(max(self.patience / 4, 0.05), self.look)

    def look(self) -> None:
        """Whether the body still comes; called again and again until it is through."""
        now = time.monotonic()
        silent, taken = now - self.heard, now - self.began
        if silent > self.patience:
            self.give_up(too_slow(f"nothing came for {silent:.0f} s"))
        elif taken > 2 * self.patience and self.received < SLOWEST * (taken - self.patience):
            self.give_up(too_slow(f"{self.received:,} bytes came in {taken:.0f} s"))
        else:
            self.watch()

    def stop(self) -> None:
        self.give_up(stopping())

    def give_up(self, refusal: Refusal) -> None:
        """Answer now and cut the line: the rest of the body is not waited for."""
        self.settled()
        self.refusal = refusal
        self.drop()
        if not self._finished:
            self.set_header("Connection", "close")
            self.send_error(refusal.status_code, exc_info=(Refusal, refusal, None))

    def settled(self) -> None:
        """The body is through, or will not be."""
        self.state.arriving.discard(self)
        self.watching.cancel()

    # --- the body ----------------------------------------------------------------------------------------

    def data_received(self, chunk: bytes) -> None:
        if self._finished:
            return
        self.heard = time.monotonic()
        self.received += len(chunk)
        if self.refusal is not None:
            self.wasted += len(chunk)
            if self.wasted > SLACK:  # whoever still sends after so much does not listen
                self.give_up(self.refusal)
            return
        try:
            if self.received > self.promised:  # a body without a declared length
                self.reserve(min(self.received + self.state.uploads.limit, self.limit + SLACK))
            self.take(chunk)
        except Refusal as refusal:
            self.refusal = refusal
            self.drop()
        except OSError as error:
            self.refusal = no_room(self.state.uploads.lost(error))
            self.drop()

    def drop(self) -> None:
        for upload in self.uploads:
            self.state.uploads.remove(upload)
            if self.job is not None:
                self.job.future.add_done_callback(self.state.uploads.remover(upload))
        self.state.uploads.release(self)

    def on_finish(self) -> None:
        if hasattr(self, "watching"):
            self.settled()

    def on_connection_close(self) -> None:
        if hasattr(self, "watching"):
            self.settled()
            if self.job is not None:
                self.job.stop.set()
            self.drop()
        super().on_connection_close()  # which ends the wait for the rest of the body


def no_room(error: NoRoom) -> Refusal:
    return Refusal(507, "no-room", str(error))


def too_slow(what: str) -> Refusal:
    return Refusal(408, "too-slow", f"the file came too slowly ({what}); send it again over a faster connection")


class PutUpload(Streamed):
    """`PUT /uploads/TOKEN`: one raw file of an open page."""

    def begin(self) -> None:
        token = self.request.path.rsplit("/", 1)[1]
        self.session = self.state.pages.get(token)
        if self.session is None or self.session.caller != self.caller:
            raise Refusal(404, "no-page", "the page that sent this has closed; load it again")
        if len(self.session.uploads) >= self.session.FILES:
            raise Refusal(413, "too-many", "too many files are held; judge these first")
        limit = self.state.uploads.limit
        self.reserve(limit if self.declared is None else min(self.declared, limit))
        name = urllib.parse.unquote(self.request.headers.get("X-File-Name", "scan"))[-255:]
        try:
            self.uploads = [self.state.uploads.new(name)]
            self.file = self.uploads[0].path.open("wb")
        except ScanError as error:
            raise Refusal(415, error.code, str(error)) from error
        except OSError as error:
            raise no_room(self.state.uploads.lost(error)) from error

    def take(self, chunk: bytes) -> None:
        if self.received > self.state.uploads.limit:
            raise self.too_large()
        self.file.write(chunk)

    def drop(self) -> None:
        close(getattr(self, "file", None))
        super().drop()

    def put(self, token: str) -> None:
        self.settled()
        if self.refusal is not None:
            raise self.refusal
        uploads = self.state.uploads
        try:
            self.file.close()
            uploads.reserve(self.uploads[0].path, self.received)
        except OSError as error:
            self.drop()
            raise no_room(uploads.lost(error)) from error
        except NoRoom:
            pass  # it was promised, and is there: what follows tells
        uploads.release(self)
        if not uploads.arrived(self.uploads[0]):
            self.drop()
            gone = self.state.gone(self.uploads[0])
            raise Refusal(410, gone.code, str(gone))
        key = self.session and self.session.add(self.uploads[0])
        if key is None:
            self.drop()
            raise Refusal(404, "no-page", "the page that sent this has closed; load it again")
        self.uploads = []  # the page's from now on
        self.answer({"id": key})


class Analysis(Streamed):
    """`POST /healthcare/mri/analysis`: files in, one result or error a file out, in the order sent."""

    parts = 8

    def begin(self) -> None:
        kind, options = parse_options_header(self.request.headers.get("Content-Type", ""))
        if kind != b"multipart/form-data" or b"boundary" not in options:
            raise Refusal(415, "not-a-form", "send multipart/form-data with the scans in the field `files`")
        if self.state.pool.full:
            raise self.busy(self.state.pool.length + 1)
        try:
            self.form = Form(options[b"boundary"], self.state, self.too_large)
        except FormParserError as error:
            raise Refusal(400, "broken-form", f"the form cannot be read: {error}") from error
        self.reserve(self.state.uploads.limit if self.declared is None else min(self.declared, self.limit))
        self.uploads = self.form.uploads

    def busy(self, number: int) -> Refusal:
        return Refusal(
            503,
            "busy",
            f"the queue is full, you would be number {number}; try again in a few seconds",
            **{"Retry-After": "5"},
        )

    def take(self, chunk: bytes) -> None:
        try:
            self.form.write(chunk)
        except FormParserError as error:
            raise Refusal(400, "broken-form", f"the form cannot be read: {error}") from error

    def drop(self) -> None:
        if hasattr(self, "form"):
            self.form.close()
        super().drop()

    async def post(self) -> None:
        self.settled()
        try:
            await self._post()
        finally:
            self.drop()

    async def _post(self) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.form.finish()
        for upload in self.uploads:
            self.state.uploads.arrived(upload)
        weights = self.weights()
        if not self.form.files:
            raise Refusal(422, "no-file", "the form holds no file; send scans in the field `files`")
        if not self.uploads:
            kinds = [error for _, _, error in self.form.files if error]
            raise Refusal(415, kinds[0].code, str(kinds[0]))
        wanted = payloads.wanted(self.request.headers.get("Accept", ""))
        if wanted != "json" and len(self.form.files) > 1:
            raise Refusal(
                422,
                "one-report",
                "a report, a label map or DICOM is about one scan; send one file, or ask for JSON",
            )
        if wanted == "labels" and self.state.diagnosers[weights].segmenter is None:
            raise Refusal(
                422, "no-labels", f"{weights}: nothing is outlined in its scans; ask for JSON or a report"
            )
        anyway, uncertainty = self.form.switch("judge_anyway"), self.form.switch("uncertainty")
        reason = self.state.diagnosers[weights].why_no_uncertainty
        if uncertainty and reason:
            raise Refusal(422, "no-dropout", reason)
        language = self.form.fields.get("language") or "en"
        if language not in languages():
            raise Refusal(
                422, "unknown-language", f"no language {language[:40]!r}; there are: {', '.join(languages())}"
            )
        passes, series = PASSES if uncertainty else 0, self.form.fields.get("series") or None
        asked = Asked(weights, anyway, passes, series, self.person(), self.caller, wanted)
        try:
            self.job = self.state.pool.submit(lambda job: self._work(job, asked, language))
            records, page = await self.answer_of(self.job)
        except Busy as busy:
            raise self.busy(busy.number) from busy
        except AuditError as error:
            raise unrecorded(error) from error
        except Cancelled:
            return  # nobody is listening any more
        status = 200 if any(record.get("label") for record in records) else 422
        if page is None:
            self.answer(records, status)
            return
        self.set_status(status)
        kind, body = page
        self.set_header("Content-Type", kind)
        self.set_header("Content-Security-Policy", REPORT_CSP)
        self.finish(body)

    def person(self) -> Person:
        """Whom the form says that the scan is of."""
        try:
            who = person(self.form.fields.get("age"), self.form.fields.get("sex"))
        except NormsError as error:
            raise Refusal(422, "no-such-person", str(error)) from error
        if who != NOBODY and len(self.form.files) > 1:
            raise Refusal(422, "one-person", "age and sex are one person's; send one file with them")
        return who

    def weights(self) -> str:
        """The weights file that the form asks for, by its name, its study's key, or both; else the first."""
        study, asked = (self.form.fields.get(key) for key in ("study", "weights"))
        known = self.state.diagnosers
        if not self.state.for_study(study):
            keys = ", ".join(sorted({d.study.key for d in known.values()}))
            raise Refusal(
                422, "unknown-study", f"no weights for the study {(study or '')[:60]!r}; there are: {keys}"
            )
        found = self.state.for_study(study, asked)
        if found is None:
            there = self.state.for_study(None, asked)
            of = f"belong to the study {known[there].study.key}, not to {study!r}" if there else "are not here"
            raise Refusal(
                422,
                "unknown-weights",
                f"the weights {(asked or '')[:80]!r} {of}; there are: {', '.join(known)}",
            )
        return found

    def _work(self, job: Job, asked: Asked, language: str):
        """In a worker's thread: every file in turn; the report is drawn here too."""

        def step(_: str) -> None:
            if job.stop.is_set():
                raise Cancelled

        records, page = [], None
        for name, upload, error in self.form.files:
            if error is not None:
                records.append(error_record(name, error))
            if upload is None:
                continue
            for found in each(self.state, upload, asked, step):
                records.append(found.record)
                diagnosis = found.diagnosis
                outlined = diagnosis is not None and diagnosis.segmentation is not None
                if diagnosis is not None and (outlined if asked.form == "labels" else asked.form != "json"):
                    judge = self.state.diagnosers[asked.weights]
                    try:
                        page = payloads.handed_over(judge, diagnosis, asked.form, language)
                    except ScanError as unfit:  # DICOM results of what was no DICOM
                        records[-1] = error_record(upload.name, unfit)
            self.state.uploads.remove(upload)
        return records, page


ROUTES = [
    (r"/uploads/([\w-]+)", PutUpload),
    (r"/healthcare/mri/analysis", Analysis),
]
