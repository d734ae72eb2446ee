"""A table that grows row by row, and that a crash at any moment leaves whole: CSV, JSON lines or Parquet.

Every row is one line, written by one call behind the last. A line that a crash tore is cut off when the table is
opened again, and rows that are there already are told, so that nothing is judged twice. Parquet cannot grow: its
rows wait in a `.part` file beside it until all are there. So do those of a shard.
"""

import contextlib
import io
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cohorts.inputs import InputError
from cohorts.table.forms import FORMS, Entry, Made, check_name, stored, write_parquet
from cohorts.table.rows import Columns
from scans.files import Lock, write_whole
from studies import from_json

SYNC = 1.0  # seconds of rows that a power cut may take along


class Results:
    """The table of one run: `begin`, `append` each record, `finish`; `close` alone where the run was stopped."""

    def __init__(self, path: Path, columns: Columns, whole: bool = False):
        check_name(path)
        self.path, self.columns = path, columns
        self.form = FORMS[path.suffix](columns)
        self.waits = whole or path.suffix == ".parquet"  # the table appears when all its rows are there
        self.working = path.with_name(path.name + ".part") if self.waits else path
        self.kept: dict[str, str] = {}  # file → content of the rows that stand
        self.refused = 0  # among them
        self._superseded = False
        self._out: int | None = None
        self._lock = Lock(self.working.with_name(f".{self.working.name}.lock"))
        self._synced = time.monotonic()

    # --- before ------------------------------------------------------------------------------------------

    def begin(self, made: Made, retry: bool = False, anew: bool = False) -> None:
        """Open the table, or go on with the one that is there.

        `made` says by what weights and how the rows are made; a table of others is refused. With `retry` the rows
        of refused files go, so that they are tried again; with `anew` all go.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._take()
        copied = False
        try:
            if anew:
                self.path.unlink(missing_ok=True)
                self.working.unlink(missing_ok=True)
            copied = self.waits and self.path.exists() and not self.working.exists()
            if copied:
                self._copy_back()
            if not self.working.exists():
                write_whole(self.working, lambda out: out.write(self.form.head))
            self._mend()
            if self._survey(made, retry):
                self._compact(retry)
            self._out = os.open(self.working, os.O_WRONLY | os.O_APPEND)
        except BaseException:
            if copied:
                self.working.unlink(missing_ok=True)
            self.close()
            raise

    def _take(self) -> None:
        """Hold the table against another run."""
        try:
            self._lock.take()
        except BlockingIOError as error:
            raise InputError(
                f"{self.path}: another run writes there; wait for it, or name another file"
            ) from error

    def _copy_back(self) -> None:
        """The rows of a finished table, to go on with; the table stays until there is another."""
        write_whole(self.working, lambda out: out.writelines(stored(self.path)))

    def _mend(self) -> None:
        """Cut off a last line that was torn."""
        with self.working.open("r+b") as file:
            size = end = file.seek(0, os.SEEK_END)
            while end and not _ends_a_line(file, end):
                end -= 1
            if end < size:
                file.truncate(end)
        with self.working.open("rb") as file:
            head = file.readline() if self.form.head else b""
        if not head and self.form.head:
            self.working.write_bytes(self.form.head)
        elif head != self.form.head:
            raise InputError(
                f"{self.path}: has other columns than this run writes ({head.decode(errors='replace')[:80]}…); "
                "name another file, or begin anew with --anew"
            )

    def _entries(self) -> Iterator[tuple[bytes, Entry]]:
        for number, line in enumerate(stored(self.working, self.form.head), 1):
            try:
                yield line, self.form.decode(line)
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{self.path}: row {number} cannot be read; mend or remove it, or begin anew with --anew"
                ) from error

    def _survey(self, made: Made, retry: bool) -> bool:
        """Learn which rows stand; whether some do not."""
        total = 0
        for _, entry in self._entries():
            total += 1
            if entry.made != made:
                raise InputError(
                    f"{self.path}: its rows were made {entry.made}, and this run judges {made}; name "
                    "another file, or begin anew with --anew"
                )
            self.kept.pop(entry.file, None)
            if not (retry and entry.refused):
                self.kept[entry.file] = entry.sha256
                self.refused += entry.refused
        return len(self.kept) < total

    # --- rows --------------------------------------------------------------------------------------------

    def append(self, record: Mapping[str, Any]) -> None:
        """One more row; on the disk a second later at most."""
        out = self._open()
        self._superseded |= self.kept.pop(record["file"], None) is not None
        line, start = self.form.encode(record), os.fstat(out).st_size
        try:
            written = 0
            while written < len(line):
                written += os.write(out, line[written:])
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(out, start)
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); make room, and the same command goes on"
            ) from error
        if time.monotonic() - self._synced > SYNC:
            os.fsync(out)
            self._synced = time.monotonic()

    def keep(self, file: str) -> None:
        """The row of this file stands, as its content is still the same."""
        self.kept.pop(file, None)

    def _open(self) -> int:
        if self._out is None:
            raise RuntimeError("the table is not open: call begin")
        return self._out

    # --- after -------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """All rows are there: what was judged anew replaces its old row, what waits becomes the table."""
        os.fsync(self._open())
        if self._superseded:
            self._compact(False)
        if self.path.suffix == ".parquet":
            write_parquet(self.path, map(from_json, stored(self.working)), self.columns)
            self.working.unlink()
        elif self.waits:
            self.working.replace(self.path)
        self.close()

    def close(self) -> None:
        """Leave the table as it is to whoever comes next."""
        if self._out is not None:
            os.fsync(self._out)
            os.close(self._out)
            self._out = None
        self._lock.release()

    def _compact(self, retry: bool) -> None:
        """Keep the last row of each file alone; with `retry` none of a refused one."""
        last = {entry.file: number for number, (_, entry) in enumerate(self._entries())}

        def fill(out: io.BufferedWriter) -> None:
            out.write(self.form.head)
            for number, (line, entry) in enumerate(self._entries()):
                if last[entry.file] == number and not (retry and entry.refused):
                    out.write(line)

        write_whole(self.working, fill)


def _ends_a_line(file: io.BufferedRandom, end: int) -> bool:
    file.seek(end - 1)
    return file.read(1) == b"\n"
