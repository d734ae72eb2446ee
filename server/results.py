"""What a result's page fetches by the result's key: the volume, heat maps, the label map, reports."""

import threading
import time

from diagnosis.maps.explain import ExplainError
from reports.cuts import cuts_png
from reports.labels import SUFFIX, label_map
from scans import processes
from scans.scan import ScanError
from server import payloads
from server.answers import identified
from server.http import REPORT_CSP, Guard, Refusal
from server.state import Busy, Cancelled, Result


class OfResult(Guard):
    """A handler that looks for a result, and works in the pool."""

    def result(self, key: str):
        result = self.state.results.get(key)
        if result is None or result.refused or result.caller != self.caller:
            raise Refusal(404, "gone", "this result is no longer kept; open the scan again")
        return result

    def measured(self, key: str):
        """A result in which something was outlined."""
        result = self.result(key)
        if not result.record["measures"]:
            raise Refusal(404, "no-labels", "nothing was outlined in this scan, so there are no outlines to show")
        return result

    async def fetched(self, result: Result, part: str) -> None:
        """Have it written down that a part of a result is handed over."""
        told = identified(self.state, result.weights, result.scan, result.series)
        await self.note({"what": "fetched", "part": part} | told)

    async def work(self, job):
        """Run `job` in the pool; a full queue is told as on the API."""
        try:
            return await self.answer_of(self.state.pool.submit(lambda _: job()))
        except Busy as busy:
            raise Refusal(503, "busy", str(busy), **{"Retry-After": "5"}) from busy
        except ScanError as error:
            raise Refusal(404, "gone", "this scan is no longer kept; open it again") from error
        except Cancelled as error:
            raise Refusal(404, "gone", "this result was closed meanwhile; open the scan again") from error


class Thumbnails(OfResult):
    """`/results/KEY/series`: a small picture of each series of a folder, also of one that was refused."""

    async def get(self, key: str) -> None:
        result = self.state.results.get(key)
        if result is None or not result.listed or result.caller != self.caller:
            raise Refusal(404, "gone", "there are no series here to choose from")
        upload = result.upload
        found = await self.work(lambda: processes.thumbnails(upload.path, upload.name))
        await self.fetched(result, "pictures of the series")
        self.answer({name: payloads.picture(grey) for name, grey in found.items()})


class Volume(OfResult):
    async def get(self, key: str) -> None:
        result = self.result(key)
        body = await self.work(lambda: payloads.volume(self.state.diagnosis(result)))
        await self.fetched(result, "volume")
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
            try:
                found = diagnoser.explain(diagnosis, method, code, progress=progress)
            except ExplainError as error:
                raise Refusal(422, error.code, str(error)) from error
            return payloads.MAPS[suffix or ""](diagnosis, found)

        try:
            body = await self.work(job)
        finally:
            heard.pop(key, None)
        await self.fetched(result, f"map.{suffix}" if suffix else "map")
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
            await self.fetched(result, "report.json")
            self.set_header("Content-Disposition", 'attachment; filename="scanwise.json"')
            self.answer(result.record)
            return
        body = await self.work(lambda: payloads.report(diagnoser, self.state.diagnosis(result), kind, language))
        await self.fetched(result, f"report.{kind}")
        self.set_header("Content-Type", payloads.REPORTS[kind])
        self.set_header("Content-Security-Policy", REPORT_CSP)
        stamp = time.strftime("%Y%m%d-%H%M")
        self.set_header("Content-Disposition", f'attachment; filename="scanwise-{stamp}.{kind}"')
        self.finish(body)


class Outlines(Volume):
    """`/results/KEY/outlines`: what was outlined, for the viewer."""

    async def get(self, key: str) -> None:
        result = self.measured(key)
        body = await self.work(lambda: payloads.outlines(self.state.diagnosis(result)))
        await self.fetched(result, "outlines")
        self.send(body)


class Cuts(OfResult):
    """`/results/KEY/cuts.png`: three coronal cuts through the hippocampi, with outlines."""

    async def get(self, key: str) -> None:
        result = self.measured(key)
        body = await self.work(lambda: cuts_png(self.state.diagnosis(result)))
        await self.fetched(result, "cuts.png")
        self.set_header("Content-Type", "image/png")
        self.set_header("Cache-Control", "private, max-age=600")
        self.finish(body)


class Labels(OfResult):
    """`/results/KEY/labels.nii.gz`: what was outlined, on the scan's own grid."""

    async def get(self, key: str) -> None:
        result = self.measured(key)
        body = await self.work(lambda: label_map(self.state.diagnosis(result)))
        await self.fetched(result, "labels.nii.gz")
        self.set_header("Content-Type", "application/gzip")
        self.set_header("Content-Disposition", f'attachment; filename="scanwise{SUFFIX}"')
        self.finish(body)


class Dicom(OfResult):
    """`/results/KEY/dicom.zip`: the results as DICOM, for an archive."""

    async def get(self, key: str) -> None:
        result, language = self.result(key), self.get_query_argument("language", "en")
        diagnoser = self.state.diagnosers[result.weights]

        def job() -> tuple[str, bytes]:
            diagnosis = self.state.diagnosis(result)
            try:
                return payloads.dicom(diagnoser, diagnosis, "dicom.zip", language)
            except ScanError as error:
                raise Refusal(422, error.code, str(error)) from error

        kind, body = await self.work(job)
        await self.fetched(result, "dicom.zip")
        self.set_header("Content-Type", kind)
        self.set_header("Content-Disposition", 'attachment; filename="scanwise-dicom.zip"')
        self.finish(body)


ROUTES = [
    (r"/results/([\w-]+)/volume", Volume),
    (r"/results/([\w-]+)/series", Thumbnails),
    (r"/results/([\w-]+)/map(?:\.(nii\.gz|png))?", HeatMap),
    (r"/results/([\w-]+)/progress", Progress),
    (r"/results/([\w-]+)/report\.(html|pdf|json)", Report),
    (r"/results/([\w-]+)/outlines", Outlines),
    (r"/results/([\w-]+)/cuts\.png", Cuts),
    (r"/results/([\w-]+)/labels\.nii\.gz", Labels),
    (r"/results/([\w-]+)/dicom\.zip", Dicom),
]
