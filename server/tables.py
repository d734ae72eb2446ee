"""Several results together: the table as CSV, and all reports as one zip, written as they are drawn."""

import asyncio
import csv
import io
import re
import time
import zipfile

from cohorts.table.rows import columns_of
from scans.scan import ScanError
from server import payloads
from server.answers import identified
from server.http import Guard, Refusal
from server.state import Busy, Cancelled, PageSession, Result

PAUSE = 0.2  # seconds between two tries while the queue is full


class OfPage(Guard):
    """A handler that looks for the results that an open page shows together."""

    def page(self, token: str) -> PageSession:
        session = self.state.pages.get(token)
        if session is None or not session.table or session.caller != self.caller:
            raise Refusal(404, "gone", "the page that showed these results has closed; open the scans again")
        return session

    async def fetched(self, results: list[Result], part: str) -> None:
        """Have it written down, a line a scan, that these are handed over together."""
        told = [identified(self.state, one.weights, one.scan, one.series) for one in results if one.scan]
        await self.note(*({"what": "fetched", "part": part} | one for one in told))

    def as_file(self, kind: str, suffix: str) -> None:
        stamp = time.strftime("%Y%m%d-%H%M")
        self.set_header("Content-Type", kind)
        self.set_header("Content-Disposition", f'attachment; filename="scanwise-{stamp}.{suffix}"')


class Table(OfPage):
    """`/pages/TOKEN/table.csv`: a row a file, in the columns of `diagnose.py --csv`."""

    async def get(self, token: str) -> None:
        results = self.page(token).table
        await self.fetched(results, "table.csv")
        records = [result.record for result in results]
        columns = columns_of(records, self.state.diagnosers[results[0].weights].study.codes)
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(columns.names)
        writer.writerows(columns.texts(columns.row(record)) for record in records)
        self.as_file("text/csv; charset=UTF-8", "csv")
        self.finish(text.getvalue().encode("utf-8-sig"))  # with a mark, by which spreadsheets know UTF-8


class Reports(OfPage):
    """`/pages/TOKEN/reports.zip`: the PDF report of each judged scan; what had none is told in a text file."""

    async def get(self, token: str) -> None:
        results = self.page(token).table
        await self.fetched(results, "reports.zip")
        language = self.get_query_argument("language", "en")
        self.as_file("application/zip", "zip")
        sink = Sink()
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:  # a PDF is packed already
            for number, result in enumerate(results, 1):
                suffix, body = await self.report(result, language)
                name = re.sub(r"[^\w.()+ -]", "_", result.record["file"])
                archive.writestr(f"{number:03} {name}.{suffix}", body)
                self.write(sink.taken())
                await self.flush()  # whoever left is noticed here
        self.finish(sink.taken())

    async def report(self, result: Result, language: str) -> tuple[str, bytes]:
        """How the report's name ends, and its bytes; of a refusal its words."""
        if result.refused:
            return "txt", result.record["error"]["message"].encode()
        diagnoser = self.state.diagnosers[result.weights]

        def draw() -> bytes:
            return payloads.report(diagnoser, self.state.diagnosis(result), "pdf", language)

        while True:
            try:
                return "pdf", await self.answer_of(self.state.pool.submit(lambda _: draw()))
            except Busy:
                if self.state.stopping:
                    raise
                await asyncio.sleep(PAUSE)
            except (ScanError, Cancelled):
                return "txt", b"This scan is no longer kept; open it again."


class Sink(io.RawIOBase):
    """Where a zip is written to: a buffer that is emptied as it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.held += data
        return len(data)

    def taken(self) -> bytes:
        part = bytes(self.held)
        self.held.clear()
        return part


ROUTES = [
    (r"/pages/([\w-]+)/table\.csv", Table),
    (r"/pages/([\w-]+)/reports\.zip", Reports),
]
