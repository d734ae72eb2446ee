"""What an upload is answered with: judged, written down in the audit log, and one answer for each study in it.

Nothing leaves here that is not written down where there is a log.
"""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from diagnosis.anatomy.norms import NOBODY, Person
from diagnosis.diagnoser import Diagnosis, error_record
from scans.files import content_hash
from scans.folders.candidates import each_study
from scans.origin import Series
from scans.read import name_of
from scans.scan import ScanError
from server.access.callers import OPEN, Caller
from server.audit import AuditError
from server.folder import Upload
from server.state import Job, PageSession, Result, ServerState

MOST = 20  # studies of one upload that are answered at once


@dataclass(frozen=True)
class Asked:
    """How an upload is to be judged, for whom, and in which form the answer goes."""

    weights: str
    anyway: bool = False
    passes: int = 0
    series: str | None = None
    person: Person = NOBODY
    caller: Caller = OPEN
    form: str = "page"


@dataclass(frozen=True, eq=False)
class Answer:
    """One study's answer; `scan` is the hash of the upload's bytes, where a log wants it."""

    record: dict[str, Any]
    diagnosis: Diagnosis | None
    series: str | None
    scan: str | None


def each(
    state: ServerState, upload: Upload, asked: Asked, progress: Callable[[str], None] = lambda step: None
) -> Iterator[Answer]:
    """An answer to the upload, or one for each study where those of several people lie in it.

    A series that was asked for is one answer, and so is what a person's age and sex came with. AuditError where
    the answer cannot be written down.
    """
    scan = hashed(state, upload)
    first = judged(state, upload, asked, scan, progress)
    one = asked.series is not None or asked.person != NOBODY or asked.form not in ("page", "json")
    listed = [] if one else series_of(first.record)
    keys = each_study(listed)
    if len(keys) > MOST:
        words = (
            f"{upload.name}: {len(keys)} studies, and {MOST} are answered at once; send fewer, or use cohort.py"
        )
        yield replace(first, record=error_record(upload.name, ScanError("several-people", words)), diagnosis=None)
        return
    if not keys:
        yield first
    for key in keys:
        name = name_of(upload.name, key)
        if first.diagnosis is not None and any(series.chosen for series in listed if series.key == key):
            found = replace(first.diagnosis, file=name)
            yield Answer(found.record(), found, key, scan)
        else:
            yield judged(state, replace(upload, name=name), replace(asked, series=key), scan, progress)


def judged(
    state: ServerState, upload: Upload, asked: Asked, scan: str | None, progress: Callable[[str], None]
) -> Answer:
    """One answer, written down."""
    record, diagnosis = state.judge(
        upload, asked.weights, asked.anyway, asked.passes, progress, asked.series, asked.person
    )
    told = {"what": "scan judged", "form": asked.form, "outcome": outcome(record)}
    state.note(asked.caller, told | identified(state, asked.weights, scan, asked.series))
    return Answer(record, diagnosis, asked.series, scan)


def identified(state: ServerState, weights: str, scan: str | None, series: str | None) -> dict[str, Any]:
    """What of a scan and its judge is written down: hashes, and the number of a series that was asked for."""
    found = {"weights": state.diagnosers[weights].weights.sha256, "scan": scan}
    return found if series is None else found | {"series": series[:16]}


def outcome(record: dict[str, Any]) -> str:
    return f"refused: {record['error']['code']}" if "error" in record else record["gate"]["verdict"]


def hashed(state: ServerState, upload: Upload) -> str | None:
    """The SHA-256 of an upload, where a log wants it and the upload is there."""
    if state.audit is None:
        return None
    try:
        return content_hash(upload.path)
    except OSError:
        return None


def series_of(record: dict[str, Any]) -> list[Series]:
    """The series that lay together, from a record's list of them."""
    listed = record["error"].get("series", []) if "error" in record else record["series"]
    return [Series.of(one) for one in listed]


def results(
    session: PageSession,
    job: Job,
    upload: Upload,
    asked: Asked,
    progress: Callable[[str], None] = lambda step: None,
) -> list[Result]:
    """The answers to a page, with what it will ask for next; Cancelled where it has closed meanwhile."""
    try:
        found = list(each(session.state, upload, asked, progress))
    except AuditError as error:
        record = {"file": upload.name, "error": {"code": "not-recorded", "message": error.words}}
        found = [Answer(record, None, asked.series, None)]
    return [
        session.keep(
            job,
            Result(
                secrets.token_urlsafe(16),
                upload,
                asked.weights,
                one.record,
                series=one.series,
                scan=one.scan,
                caller=asked.caller,
            ),
            one.diagnosis,
        )
        for one in found
    ]
