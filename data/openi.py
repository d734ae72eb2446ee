"""Open-i's chest X-rays as labelled pictures: pages of its search, the pictures, and an index by patient.

Normal against nodule, by the MeSH items of each report. It asks gently, tries again where that can help, goes on
where it stopped, and names what it could not get. It splits nothing; `train.py --data DIR` reads its index.
"""

import csv
import io
import json
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode, urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError, MaxRetryError
from urllib3.util import Retry

from data.tables import DataError
from scans.files import write_bytes
from scans.processes import read
from scans.progress import progress

T = TypeVar("T")

ADDRESS = "https://openi.nlm.nih.gov"
PAGE = 100  # records asked for at once; a server that gives fewer is followed
ATTEMPTS = 5
WAIT = 1.0  # seconds before the third attempt, doubled before each further one; the second comes in turn
LONGEST = 300  # seconds that a server's Retry-After may ask for
LARGEST = 50 << 20  # bytes of one answer
AGAIN = (408, 425, 429, 500, 502, 503, 504)  # statuses that another attempt may mend


class FetchError(Exception):
    """What could not be had, and why."""


class Visitor:
    """One polite visitor of a server, for several threads: a pause between requests, one rest for all.

    urllib3's `Retry` says whether and when to try again; it stands outside the adapter, for an answer may also be
    whole and yet no picture, and for a rest that the server asks for is everybody's.
    """

    def __init__(self, address: str = ADDRESS, timeout: float = 60.0, pause: float = 0.1):
        self.address = address
        self.timeout = timeout  # seconds for a whole answer
        self.pause = pause  # seconds between the starts of two requests
        self.next = 0.0  # no request starts before
        self.lock = threading.Lock()
        self.leaving = threading.Event()
        self.session = requests.Session()
        self.session.headers["User-Agent"] = "Scanwise (research; one visitor)"

    def get(self, path: str, check: Callable[[bytes], T]) -> T:
        """What `check` makes of the answer; tries again while that may help, else FetchError."""
        retry = Retry(
            ATTEMPTS - 1, backoff_factor=WAIT, backoff_jitter=WAIT, status_forcelist=AGAIN, retry_after_max=LONGEST
        )
        while True:
            self.wait_for_turn()
            asked = None  # seconds that the server asks us to stay away
            try:
                with self.ask(path) as answer:
                    if answer.status_code == 200:
                        return check(self.body(answer))
                    why = f"status {answer.status_code}"
                    asked = retry.get_retry_after(answer.raw)
                    if not retry.is_retry("GET", answer.status_code, asked is not None):
                        break
            except (requests.RequestException, HTTPError, OSError, ValueError) as error:
                why = str(error) or type(error).__name__
            try:
                retry = retry.increment("GET", path)
            except MaxRetryError:
                break
            if asked is not None:
                with self.lock:  # the server is busy for everyone, not for this request alone
                    self.next = max(self.next, time.monotonic() + asked)
            if self.leaving.wait(retry.get_backoff_time() if asked is None else asked):
                break
        raise FetchError(why)

    def wait_for_turn(self) -> None:
        """Waits until the next request may start."""
        with self.lock:
            now = time.monotonic()
            start = max(now, self.next)
            self.next = start + self.pause
        if self.leaving.wait(start - now):
            raise FetchError("stopped")

    def ask(self, path: str) -> requests.Response:
        """The answer, its body unread; of a link only its path is followed: no page can send us elsewhere."""
        parts = urlsplit(path)
        url = urljoin(self.address, parts._replace(scheme="", netloc="").geturl())
        return self.session.get(url, stream=True, timeout=self.timeout)

    def body(self, answer: requests.Response) -> bytes:
        """The whole body, in bounded time and size; urllib3 tells where it broke off."""
        end, blocks, size = time.monotonic() + self.timeout, [], 0
        while block := answer.raw.read1(1 << 16, decode_content=True):
            blocks.append(block)
            size += len(block)
            if size > LARGEST:
                raise ValueError(f"the answer is larger than {LARGEST >> 20} MB")
            if time.monotonic() > end:
                raise TimeoutError(f"the answer took longer than {self.timeout:g} s")
        return b"".join(blocks)


# ---- what a record says


def label_of(mesh: dict[str, Any]) -> str | None:
    """ "normal", "nodule", or None for everything else, by a report's MeSH items such as "Nodule/lung/small"."""
    major, minor = ([str(item).lower() for item in mesh.get(part) or []] for part in ("major", "minor"))
    heads = [item.split("/")[0] for item in major + minor]
    if any(re.search(r"\bnodules?\b", head) for head in heads):
        return "nodule"
    return "normal" if set(heads) == {"normal"} else None


def records_of(body: bytes) -> dict[str, Any]:
    """A page of the search, cut down to what is used; ValueError for anything else."""
    page = json.loads(body)
    try:
        records = [
            {"uid": str(one["uid"]), "picture": str(one["imgLarge"]), "mesh": dict(one["MeSH"])}
            for one in page["list"]
        ]
        return {"total": int(page["total"]), "records": records}
    except (KeyError, TypeError) as error:
        raise ValueError(f"no page of search results ({error} is missing or odd)") from error


def name_of(path: str) -> str:
    """The picture's own name below pictures/; never a way out of it."""
    name = urlsplit(path).path.rsplit("/", 1)[-1]
    if not re.fullmatch(r"\w[\w.-]*\.(png|jpe?g)", name, re.IGNORECASE):
        raise FetchError(f"{name!r} is no picture's name")
    return name


# ---- from the server to a folder


def fetch(
    folder: Path, first: int = 1, last: int | None = None, visitor: Visitor | None = None, workers: int = 4
) -> list[str]:
    """Pages, pictures and `index.csv` of the records first to last; what failed, a line each.

    A page or picture that lies in the folder already is not asked for again.
    """
    visitor = visitor or Visitor()
    (folder / "pages").mkdir(parents=True, exist_ok=True)
    records, failed = search(folder / "pages", first, last, visitor)
    wanted = {}  # one entry a picture, whatever pages it stands on
    for record in records:
        label = label_of(record["mesh"])
        if label:
            wanted[record["picture"]] = {"label": label, "subject": record["uid"]}
    print(f"{len(records)} records, {len(wanted)} of them normal or with a nodule", flush=True)
    rows = read_index(folder)
    pool = ThreadPoolExecutor(workers)
    try:
        jobs = {path: pool.submit(picture, folder, path, visitor) for path in wanted}
        for path, job in progress(jobs.items(), "pictures", unit="picture"):
            try:
                rows[job.result()] = wanted[path]
            except FetchError as error:
                failed.append(f"{path}: {error}")
    finally:
        visitor.leaving.set()  # after Ctrl-C nobody waits for what is not needed any more
        pool.shutdown(cancel_futures=True)
        visitor.session.close()
        write_index(folder, rows)
    return failed


def search(pages: Path, first: int, last: int | None, visitor: Visitor) -> tuple[list[dict[str, Any]], list[str]]:
    """The records first to last of the collection, and what pages failed."""
    gathered: list[dict[str, Any]] = []
    failed: list[str] = []
    at, total = first, None
    with progress(title="search", unit="record") as bar:
        while at <= min(last or at, total or at):
            end = min(at + PAGE - 1, last or at + PAGE - 1)
            try:
                page = page_of(pages / f"{at:06}.json", at, end, visitor)
            except FetchError as error:
                if total is None:
                    raise DataError(
                        f"{visitor.address}: no page of its search could be had ({error}); try again "
                        "later with the same command, which goes on where it stopped"
                    ) from error
                failed.append(f"records {at}–{end}: {error}")
                at = end + 1
                continue
            total, records = page["total"], page["records"][: end - at + 1]
            if total < first:
                raise DataError(f"--range from {first}: the collection has {total} records")
            bar.total = min(last or total, total) - first + 1
            bar.update(len(records))
            gathered += records
            at += len(records)
    return gathered, failed


def page_of(kept: Path, first: int, last: int, visitor: Visitor) -> dict[str, Any]:
    """One page, from the folder or from the server; an empty one before the end is a failure."""
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))

    def check(body: bytes) -> dict[str, Any]:
        page = records_of(body)
        if not page["records"] and page["total"] >= first:
            raise ValueError("an empty page before the end")
        return page

    query = urlencode({"query": "", "it": "xg", "coll": "cxr", "m": first, "n": last})
    page = visitor.get(f"/api/search?{query}", check)
    if page["records"]:
        write_text(kept, json.dumps(page))
    return page


def picture(folder: Path, path: str, visitor: Visitor) -> str:
    """One picture into pictures/, unless it lies there already; its name counted from the folder."""
    name = f"pictures/{name_of(path)}"
    if not (folder / name).is_file():

        def check(body: bytes) -> bytes:
            read(body, name)  # ScanError, a ValueError, where it is no whole picture
            return body

        body = visitor.get(path, check)
        write_bytes(folder / name, body)
    return name


def read_index(folder: Path) -> dict[str, dict[str, str]]:
    """What earlier calls brought: file → label and subject."""
    if not (folder / "index.csv").is_file():
        return {}
    with (folder / "index.csv").open(newline="", encoding="utf-8") as lines:
        rows = {row.pop("file"): row for row in csv.DictReader(lines)}
    return {file: row for file, row in rows.items() if (folder / file).is_file()}


def write_index(folder: Path, rows: dict[str, dict[str, str]]) -> None:
    lines = io.StringIO(newline="")
    table = csv.writer(lines, lineterminator="\n")
    table.writerow(["file", "label", "subject"])
    table.writerows([file, rows[file]["label"], rows[file]["subject"]] for file in sorted(rows))
    write_text(folder / "index.csv", lines.getvalue())


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def first_and_last(text: str) -> tuple[int, int | None]:
    """ "A-B" as two numbers counted from 1; "A-" is open."""
    match = re.fullmatch(r"(\d+)-(\d*)", text)
    first, last = (int(match[1]), int(match[2]) if match[2] else None) if match else (0, None)
    if first < 1 or (last is not None and last < first):
        raise DataError(f"--range {text}: give two numbers such as 1-500, counted from 1")
    return first, last


def run(folder: Path, span: str, address: str, workers: int, timeout: float) -> int:
    """The command: 0 where all came, 1 where some did not, which are named; 130 after Ctrl-C."""
    first, last = first_and_last(span)
    try:
        failed = fetch(folder, first, last, Visitor(address, timeout), workers)
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it stopped")
        return 130
    rows = read_index(folder)
    for label in ("normal", "nodule"):
        mine = [row for row in rows.values() if row["label"] == label]
        print(f"{label}: {len(mine)} pictures of {len({row['subject'] for row in mine})} patients")
    print(
        f"wrote {folder / 'index.csv'}. The collection does not tell frontal pictures from lateral ones: look "
        "through them."
    )
    if failed:
        print(f"{len(failed)} could not be had; the same command tries them again:", *failed, sep="\n  ")
    return 1 if failed else 0
