"""What pages send: raw uploads of an open page, and the API's multipart forms, both streamed to disk.

A body never lies in memory: its pieces go to a generated name under the uploads folder as they arrive. A
refusal found on the way is answered once the body is through, so that the sender gets to hear it.
"""

import asyncio
import urllib.parse
from concurrent.futures import CancelledError

import tornado.web
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from diagnosis.diagnoser import error_record
from networks.dropout import PASSES
from scans.read import safe_name
from scans.scan import ScanError
from server import payloads
from server.http import REPORT_CSP, Guard, Refusal
from server.state import Busy, Cancelled, Job, ServerState, Upload, remove

SLACK = 64 << 20  # bytes past the limit that are still read and dropped, so that the refusal can be heard
MAX_FIELD = 4096  # bytes of a form field that is not a file
MAX_FILES = 200  # of one request


@tornado.web.stream_request_body
class Streamed(Guard):
    """Receives a body piece by piece, up to a limit; a refusal is answered once the body is through."""

    streamed = True
    parts = 1  # how many times one file's limit the whole body may hold

    def prepare(self) -> None:
        super().prepare()
        self.received = 0
        self.uploads: list[Upload] = []
        self.job: Job | None = None
        limit = self.parts * self.state.uploads.limit
        self.request.connection.set_max_body_size(limit + SLACK)
        declared = self.request.headers.get("Content-Length", "0")
        if declared.isdigit() and int(declared) > limit + SLACK:
            raise self.too_large()
        try:
            if self.refusal is None:
                self.begin()
        except Refusal as refusal:
            self.refusal = refusal

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

    def data_received(self, chunk: bytes) -> None:
        if self.refusal is not None or self._finished:
            return
        self.received += len(chunk)
        try:
            self.take(chunk)
        except Refusal as refusal:
            self.refusal = refusal
            self.drop()

    def drop(self) -> None:
        for upload in self.uploads:
            remove(upload)
            if self.job is not None:
                self.job.future.add_done_callback(lambda _, upload=upload: remove(upload))

    def on_connection_close(self) -> None:
        if self.job is not None:
            self.job.stop.set()
        self.drop()


class PutUpload(Streamed):
    """`PUT /uploads/TOKEN`: one raw file of an open page."""

    def begin(self) -> None:
        token = self.request.path.rsplit("/", 1)[1]
        self.session = self.state.pages.get(token)
        if self.session is None:
            raise Refusal(404, "no-page", "the page that sent this has closed; load it again")
        if len(self.session.uploads) >= self.session.FILES or not self.state.uploads.room():
            raise Refusal(413, "too-many", "too many files are held; judge these first")
        name = urllib.parse.unquote(self.request.headers.get("X-File-Name", "scan"))[:255]
        try:
            self.uploads = [self.state.uploads.new(name)]
        except ScanError as error:
            raise Refusal(415, error.code, str(error)) from error
        self.file = self.uploads[0].path.open("wb")

    def take(self, chunk: bytes) -> None:
        if self.received > self.state.uploads.limit:
            raise self.too_large()
        self.file.write(chunk)

    def drop(self) -> None:
        if hasattr(self, "file"):
            self.file.close()
        super().drop()

    def put(self, token: str) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.file.close()
        key = self.session.add(self.uploads[0])
        if key is None:
            self.drop()
            raise Refusal(404, "no-page", "the page that sent this has closed; load it again")
        self.answer({"id": key})

    def on_connection_close(self) -> None:
        if not self._finished:
            super().on_connection_close()


class Form:
    """A multipart body taken apart as it arrives: files straight to disk, small fields in memory."""

    def __init__(self, boundary: bytes, state: ServerState, too_large):
        self.state, self.too_large = state, too_large
        self.fields: dict[str, str] = {}
        self.files: list[tuple[str, Upload | None, ScanError | None]] = []
        self.uploads: list[Upload] = []
        self._file = None
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._open,
                "on_part_data": self._data,
                "on_part_end": self._shut,
            },
        )
        self._part()

    def write(self, chunk: bytes) -> None:
        self._parser.write(chunk)

    def finish(self) -> None:
        self._parser.finalize()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _part(self) -> None:
        self._headers: dict[str, bytes] = {}
        self._key, self._value, self._text, self._field, self._size = b"", b"", b"", "", 0

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._key += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._key.decode("latin-1").lower()] = self._value
        self._key = self._value = b""

    def _open(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", b""))
        self._field = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = b"filename" in options
        if not self._is_file:
            return
        if self._field not in ("file", "files"):
            raise Refusal(422, "unknown-field", f"a file in the field {self._field[:40]!r}; use `files` or `file`")
        if len(self.files) >= MAX_FILES or not self.state.uploads.room():
            raise Refusal(413, "too-many", f"more than {MAX_FILES} files, or the disk's share is full")
        name = options[b"filename"].decode("utf-8", "replace")[:255]
        try:
            upload = self.state.uploads.new(name)
        except ScanError as error:
            self.files.append((safe_name(name), None, error))
            return
        self.files.append((upload.name, upload, None))
        self.uploads.append(upload)
        self._file = upload.path.open("wb")

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._is_file:
            if self._size > self.state.uploads.limit:
                raise self.too_large()
            if self._file is not None:
                self._file.write(memoryview(data)[start:end])
        elif self._size > MAX_FIELD:
            raise Refusal(413, "too-large", f"the field {self._field[:40]!r} is longer than {MAX_FIELD} bytes")
        else:
            self._text += data[start:end]

    def _shut(self) -> None:
        self.close()
        if not self._is_file:
            self.fields[self._field] = self._text.decode("utf-8", "replace")


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
        try:
            await self._post()
        finally:
            self.drop()

    async def _post(self) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.form.finish()
        study = self.form.fields.get("study")
        weights = self.state.for_study(study)
        if weights is None:
            known = ", ".join(sorted({d.study.key for d in self.state.diagnosers.values()}))
            raise Refusal(422, "unknown-study", f"no weights for the study {study[:60]!r}; there are: {known}")
        if not self.form.files:
            raise Refusal(422, "no-file", "the form holds no file; send scans in the field `files`")
        if not self.uploads:
            kinds = [error for _, _, error in self.form.files]
            raise Refusal(415, kinds[0].code, str(kinds[0]))
        wanted = payloads.wanted(self.request.headers.get("Accept", ""))
        if wanted != "json" and len(self.form.files) > 1:
            raise Refusal(422, "one-report", "a report is about one scan; send one file, or ask for JSON")
        anyway, uncertainty = (
            self.form.fields.get(key, "").lower() in ("1", "true", "yes", "on")
            for key in ("judge_anyway", "uncertainty")
        )
        if uncertainty and self.state.diagnosers[weights].why_no_uncertainty:
            raise Refusal(422, "no-dropout", self.state.diagnosers[weights].why_no_uncertainty)
        language = self.form.fields.get("language", "en")
        try:
            self.job = self.state.pool.submit(
                lambda job: self._work(job, weights, anyway, PASSES if uncertainty else 0, wanted, language)
            )
            records, page = await asyncio.wrap_future(self.job.future)
        except Busy as busy:
            raise self.busy(busy.number) from busy
        except (Cancelled, CancelledError):
            return  # nobody is listening any more
        status = 200 if any(record.get("label") for record in records) else 422
        if page is None:
            self.answer(records, status)
            return
        self.set_header("Content-Type", payloads.REPORTS[wanted])
        self.set_header("Content-Security-Policy", REPORT_CSP)
        self.finish(page)

    def _work(self, job: Job, weights: str, anyway: bool, passes: int, wanted: str, language: str):
        """In a worker's thread: every file in turn; the report is drawn here too."""

        def step(_: str) -> None:
            if job.stop.is_set():
                raise Cancelled

        records, page = [], None
        for name, upload, error in self.form.files:
            if upload is None:
                records.append(error_record(name, error))
                continue
            record, diagnosis = self.state.judge(upload, weights, anyway, passes, step)
            records.append(record)
            if wanted != "json" and diagnosis is not None:
                page = payloads.report(self.state.diagnosers[weights], diagnosis, wanted, language)
            remove(upload)
        return records, page


ROUTES = [
    (r"/uploads/([\w-]+)", PutUpload),
    (r"/healthcare/mri/analysis", Analysis),
]
