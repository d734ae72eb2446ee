"""The audit log: who did what and when, a line of JSON each, chained by hashes; and the command that checks it.

    python -m server.audit FILE

A line is on the disk before what it tells of is answered; what cannot be written down is not done. The hash at a
line's end is the SHA-256 of the line up to its comma, with the brace closed, and stands as `before` in the next.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from server.access.callers import SERVER, Caller

try:
    import fcntl
except ImportError:  # Windows, where two writers are not kept apart
    fcntl = None  # type: ignore[assignment]

FIRST = "0" * 64  # stands for the hash before the first line
LINE = re.compile(rb'(\{"n":(\d{1,18}),.*"before":"([0-9a-f]{64})"),"hash":"([0-9a-f]{64})"\}')
BEGINS = b'{"n":'
TAIL = 1 << 16  # bytes at the end in which the last line is looked for
REFUSALS, PERIOD = 60, 60.0  # refusals written in so many seconds; those beyond are counted
SHOWN = 20  # wrong lines that are told


class AuditError(Exception):
    """The log cannot be opened or written; the message is for whoever runs the server, `words` for who asks."""

    words = (
        "this cannot be written down in the audit log, and what is not written down is not answered; tell whoever "
        "runs this server"
    )


@dataclass(frozen=True)
class Line:
    """A line as it stands: its number, the hash before it, its own, and whether its content has that hash."""

    number: int
    before: str
    hash: str
    good: bool

    @classmethod
    def of(cls, text: bytes) -> "Line | None":
        match = LINE.fullmatch(text)
        if match is None:
            return None
        content, number, before, own = match.groups()
        return cls(int(number), before.decode(), own.decode(), digest(content + b"}") == own.decode())


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sealed(record: dict[str, Any]) -> tuple[bytes, str]:
    """A record as a line, and the line's hash."""
    content = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    own = digest(content)
    return content[:-1] + f',"hash":"{own}"}}\n'.encode(), own


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class AuditLog:
    """One file, which this process alone appends to. Several threads may write at once."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic):
        self.path, self.clock = path, clock
        self.count, self.last = 0, FIRST  # the last line's number and hash
        self._torn = 0  # bytes of a line that was never finished, cut off and not yet told
        self._lost = True  # whether the file's end has to be looked at before the next line
        self._refused = [-PERIOD, 0, 0]  # period's start, lines written, refusals counted beyond
        self._lock = threading.Lock()
        try:
            new = not path.exists()
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
            self._file = os.fdopen(os.open(path, flags, 0o600), "ab+", buffering=0)
            if new and fcntl is not None:
                sync_folder(path.parent)
        except OSError as error:
            raise AuditError(
                f"{path}: cannot be written ({error.strerror or error}); name another file with --audit"
            ) from error
        try:
            self._claim()
            self._resume()
            self.write(SERVER, {"what": "server started"})
        except BaseException:
            self._file.close()
            raise

    def _claim(self) -> None:
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            raise AuditError(f"{self.path}: no plain file; name another with --audit")
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise AuditError(
                f"{self.path}: another server writes its log here; stop it, or name another file with --audit"
            ) from error

    def _resume(self) -> None:
        """Find the end of the chain; a last line that was never finished told of nothing that was answered."""
        size = self._file.seek(0, os.SEEK_END)
        start = max(0, size - TAIL)
        self._file.seek(start)
        whole, ended, rest = (self._file.read(size - start) or b"").rpartition(b"\n")
        torn = rest.rstrip(b"\0")  # a disk that lost its power may leave zeros
        if rest and (finished := Line.of(torn)) is not None and finished.good and torn == rest:
            self._file.write(b"\n")
            whole, ended = rest, b"\n"
        elif rest:
            if not (torn.startswith(BEGINS) or BEGINS.startswith(torn)) or len(rest) == TAIL:
                raise self._foreign()
            self._file.truncate(size - len(rest))
            self._torn += len(rest)
        if ended:
            last = Line.of(whole.rpartition(b"\n")[2])
            if last is None or not last.good:
                raise self._foreign()
            self.count, self.last = last.number, last.hash
        elif self.count:  # it held lines when this server last wrote
            raise AuditError(f"{self.path}: was emptied while the server ran")
        self._lost = False

    def _foreign(self) -> AuditError:
        return AuditError(
            f"{self.path}: does not end in a line of an audit log, or that line was changed; look at it with "
            f"`python -m server.audit {self.path}`, and name another file with --audit"
        )

    def write(self, caller: Caller, *events: dict[str, Any]) -> None:
        """Append a line for each event, and return when the disk has them; AuditError where it does not."""
        with self._lock:
            try:
                if not os.path.samestat(os.fstat(self._file.fileno()), self.path.stat()):
                    raise OSError("another file lies in its place")
                if self._lost:
                    self._resume()
                lines, number, last = b"", self.count, self.last
                for event in events:
                    number += 1
                    torn = {"torn": self._torn} if self._torn and not lines else {}
                    who = {"n": number, "when": now(), "by": caller.by, "who": caller.who}
                    line, last = sealed(who | event | torn | {"before": last})
                    lines += line
                self._lost = True  # until it is known how much of it is there
                if self._file.write(lines) != len(lines):
                    raise OSError("the disk is full")
                os.fsync(self._file.fileno())
            except (OSError, ValueError) as error:  # ValueError: it was closed
                raise AuditError(f"{self.path}: cannot be written ({error})") from error
            self._lost, self._torn = False, 0
            self.count, self.last = number, last

    def refused(self, caller: Caller, code: str) -> None:
        """A refusal. Strangers can cause these as they like, so those beyond some in a period are counted only."""
        self.settle()
        with self._lock:
            written = self._refused[1] < REFUSALS
            self._refused[1 if written else 2] += 1
        if written:
            self.write(caller, {"what": "refused", "code": code})

    def settle(self, end: bool = False) -> None:
        """Tell how many refusals were only counted, once their period is over."""
        with self._lock:
            if not end and self.clock() - self._refused[0] < PERIOD:
                return
            more = self._refused[2]
            self._refused = [self.clock(), 0, 0]
        if more:
            self.write(SERVER, {"what": "refused", "more": more})

    def close(self) -> None:
        if self._file.closed:
            return
        with contextlib.suppress(AuditError):  # the server ends; the missing line tells of itself
            self.settle(end=True)
            self.write(SERVER, {"what": "server stopped"})
        self._file.close()


def sync_folder(folder: Path) -> None:
    """Have the disk keep a new file's name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- checking ------------------------------------------------------------------------------------------------


@dataclass
class Chain:
    """What is found while a log is gone through."""

    anchor: str | None = None  # a hash that was written down before
    count: int = 0  # lines
    last: str = FIRST
    anchored: int | None = None  # the line that bears the anchor
    torn: bool = False  # the last line was never finished

    def faults(self, lines: Iterable[bytes]) -> Iterator[str]:
        """Each wrong line, in a sentence."""
        number: int = 0
        last: str | None = FIRST
        for text in lines:
            self.count += 1
            line = Line.of(text.removesuffix(b"\n"))
            if not text.endswith(b"\n") and (line is None or not line.good):
                self.count, self.torn = self.count - 1, True
                return
            if line is None:
                yield f"line {self.count}: no line of an audit log; it was damaged or put in"
                number, last = number + 1, None
                continue
            if why := wrong(line, number, last):
                yield f"line {self.count}: {why}"
            number, last = line.number, line.hash
            self.last = line.hash
            if line.hash == self.anchor and line.good:
                self.anchored = self.count


def wrong(line: Line, number: int, last: str | None) -> str | None:
    """What is wrong with a line after the one of this number and hash; None for nothing."""
    if not line.good:
        return "its content is not what its hash was made of; it was changed"
    if line.number > number + 1:
        missing = line.number - number - 1
        return f"{missing} line{'s' * (missing > 1)} before it {'are' if missing > 1 else 'is'} missing"
    if line.number <= number:
        return f"number {line.number} after number {number}; it was moved or put in"
    if last is not None and line.before != last:
        return "does not follow from the line before it; one of the two was exchanged"
    return None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m server.audit",
        description="Check that no line of an audit log was changed, taken out, put in or moved.",
        epilog="The exit status is 0 when the chain is whole, 1 when it is not, 2 when the file cannot be read.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the file that --audit wrote")
    parser.add_argument(
        "--anchor", metavar="HASH", help="a last hash that was written down before, which must be in it still"
    )
    options = parser.parse_args(argv)
    chain, found = Chain(options.anchor), 0
    try:
        with options.file.open("rb") as lines:
            for fault in chain.faults(lines):
                found += 1
                if found <= SHOWN:
                    print(f"{options.file}, {fault}")
    except OSError as error:
        print(f"{options.file}: cannot be read ({error.strerror}); check the path and its rights", file=sys.stderr)
        return 2
    if found > SHOWN:
        print(f"{options.file}: and {found - SHOWN} more")
    if options.anchor and chain.anchored is None:
        found += 1
        print(f"{options.file}: no line bears the hash {options.anchor}: lines were cut off or written anew")
    if chain.torn:
        print(f"{options.file}: the last line was never finished; what it tells of was not answered")
    if found:
        return 1
    print(f"{options.file}: {chain.count:,} lines, each follows from the one before it")
    if chain.anchored:
        print(f"the hash written down stands in line {chain.anchored:,}")
    print(
        f"the last hash: {chain.last}\nWrite it down elsewhere and give it as --anchor the next time: by the file "
        "alone nobody can see\nwhether lines were cut off at its end, or all from some line on was made anew."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
