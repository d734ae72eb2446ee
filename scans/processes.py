"""Reading files in processes that may die: what page, API, command line and training call.

A file from elsewhere meets parsers and decoders written in C. They run in a few reader processes without torch,
each bound in its memory, by the file and what its header declares, and in its time. One that crashes, hangs or
swells is killed and replaced, and its file is refused in words. Voxels come back in shared memory.

What is promised depends on the system. Linux: all of it. macOS: the process and the time; its kernel does not keep
the bound on memory. Windows: none of it; files are read in the calling process, counted as everywhere.
"""

import atexit
import base64
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np

from scans import memory
from scans import read as plain
from scans.folders.listing import Folder, listing
from scans.folders.units import Found, Unit, merged, units
from scans.origin import Acquisition, Series, Source
from scans.scan import MAX_VOXELS, Scan, ScanError

SECONDS = 10.0  # that reading a file may take
SECONDS_A_FILE = 0.02  # and each file of a folder, beside
SIDE = 64  # pixels each way of a series' small picture
BATCH = 1000  # files of a folder that one reader looks through at once
MAX_SURVEYED = 2_000_000  # files of a cohort
STARTING = 60.0  # seconds that a reader may take to start
IDLE = 60.0  # seconds after which a reader that nobody needed ends; one is kept
LOOK = 0.05  # seconds between two looks at whether somebody still wants the answer
MESSAGE = 8 << 20  # bytes of an answer without its voxels: a list of instances is the most of it
BY_ONE_FILE = ("reader-died", "too-large", "too-much-memory", "too-slow", "unreadable")  # what one may do to many
ROOT = Path(__file__).resolve().parent.parent
TYPES = ("u1", "i1", "u2", "i2", "i4", "f4")  # of voxels and pixels that may come back
SUPPORTED = hasattr(socket, "send_fds") and hasattr(select, "poll")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # each takes address space


class Gone(Exception):
    """A reader ended before it answered."""


class NotStarted(ScanError):
    """A reader ended, or took too long, before any file was given to it."""


class Reader:
    """One reader process, as seen from here."""

    def __init__(self) -> None:
        self.end, other = socket.socketpair()
        code = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); from scans.reader import main; main({other.fileno()})"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[other.fileno()],
            cwd=ROOT,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | dict.fromkeys(THREADS, "1"),
        )
        other.close()
        self.ready = self.worn = False
        self.rested = time.monotonic()

    def ask(
        self, message: dict[str, Any], descriptor: int, seconds: float, cancelled: Callable[[], object]
    ) -> tuple[dict[str, Any], list[int]]:
        """Its answer, and the voxels' descriptor.

        TimeoutError where it takes longer than `seconds`, Gone where it ends, InterruptedError where cancelled.
        """
        if not self.ready:
            self._wait(STARTING, cancelled)
            self.ready = True
        body = json.dumps(message).encode()
        whole = len(body).to_bytes(4, "little") + body
        with self._ending():
            sent = socket.send_fds(self.end, [whole], [descriptor])
            self.end.sendall(whole[sent:])
        return self._wait(seconds, cancelled)

    def _wait(self, seconds: float, cancelled: Callable[[], object]) -> tuple[dict[str, Any], list[int]]:
        until, poll = time.monotonic() + seconds, select.poll()
        poll.register(self.end, select.POLLIN)
        data = bytearray()
        descriptors: list[int] = []
        try:
            while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "little"):
                left = until - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                if not poll.poll(1000 * min(left, LOOK)):
                    if cancelled():
                        raise InterruptedError
                    continue
                with self._ending():
                    more, got, _, _ = socket.recv_fds(self.end, 1 << 16, 1)
                if not more or len(data) > MESSAGE:
                    raise Gone
                data += more
                descriptors += got
            return json.loads(data[4:]), descriptors
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            yield
        except (BrokenPipeError, ConnectionError) as error:
            raise Gone from error

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> int:
        """Kill it; the number it ended by."""
        self.end.close()
        self.process.kill()
        return self.process.wait()


class Readers:
    """The reader processes of this process, started as they are needed, the last used first."""

    def __init__(self, size: int | None = None):
        self.size = size or max(2, min(8, os.cpu_count() or 1))
        self._begin()

    def _begin(self) -> None:
        self.idle: list[Reader] = []
        self.count = 0
        self.changed = threading.Condition()

    def warm(self) -> None:
        """Start a reader beforehand; returns at once."""
        if SUPPORTED:
            with self.changed:
                if self.count == 0:
                    self.count += 1
                    self.idle.append(Reader())

    def read(
        self,
        file: str | Path | bytes,
        name: str | None = None,
        series: str | None = None,
        limit: int = plain.LIMIT,
        seconds: float = SECONDS,
        cancelled: Callable[[], object] = lambda: False,
    ) -> Scan:
        """`scans.read.read` in a reader process. `cancelled` is asked now and then, and may raise."""
        if not SUPPORTED:
            return plain.read(file, name, series, limit)
        shown = plain.check(file, name, limit)
        names = listing(Path(cast(str, file)), shown, plain.APART) if plain.is_folder(file) else None
        seconds += SECONDS_A_FILE * len(names or ())
        asked = {"name": shown, "series": series, "limit": limit, "seconds": seconds, "names": names}
        told, descriptors = self._ask(file, asked, seconds, cancelled)
        return scan_of(told, descriptors, shown)

    def thumbnails(
        self, file: str | Path, name: str | None = None, cancelled: Callable[[], object] = lambda: False
    ) -> dict[str, bytes]:
        """A small grey picture of each series in a file or folder: `SIDE`² bytes by its key."""
        shown = plain.check(file, name, plain.LIMIT)
        names = listing(Path(file), shown, plain.APART) if plain.is_folder(file) else None
        seconds = SECONDS + SECONDS_A_FILE * len(names or ())
        asked = {"name": shown, "limit": plain.LIMIT, "seconds": seconds, "names": names, "task": "thumbnails"}
        if SUPPORTED:
            told, _ = self._ask(file, asked, seconds, cancelled)
        else:
            data = Folder(Path(file), names) if names is not None else Path(file).read_bytes()
            told = {"thumbnails": plain.guarded(plain.THUMBNAILS, shown, data, shown, plain.LIMIT)}
        if "code" in told:
            raise refusal(told)
        pictures = {str(key)[:20]: base64.b64decode(each) for key, each in told["thumbnails"].items()}
        return {key: each for key, each in pictures.items() if len(each) == SIDE * SIDE}

    def survey(self, folder: Path, salt: bytes = b"", with_damaged: bool = False) -> list[Unit]:
        """The scans below a folder of DICOM files, persons told apart by digests with this salt."""
        shown = plain.safe_name(folder.name or folder.resolve().name)
        names = listing(folder, shown, plain.APART, MAX_SURVEYED)
        salt = salt or os.urandom(16)
        batches = [names[start : start + BATCH] for start in range(0, len(names), BATCH)]
        with ThreadPoolExecutor(self.size) as pool:
            parts = list(pool.map(lambda batch: self._surveyed(folder, shown, batch, salt), batches))
        read = units(folder, merged(one for found, _, _ in parts for one in found))
        unread = [Unit(folder / name, "") for _, _, names in parts for name in names]  # reading each says why
        damaged = [Unit(folder / name, "", damaged=True) for _, names, _ in parts for name in names]
        return sorted(read + unread + damaged * with_damaged, key=lambda unit: unit.path.parts)

    def _surveyed(
        self, folder: Path, shown: str, names: tuple[str, ...], salt: bytes
    ) -> tuple[list[Found], list[str], tuple[str, ...]]:
        """What lies in these files, which are damaged, and over which a reader breaks down: told by halves."""
        try:
            return *self._survey(folder, shown, names, salt), ()
        except NotStarted:
            raise
        except ScanError as error:
            if error.code not in BY_ONE_FILE:
                raise
        if len(names) == 1:
            return [], [], names
        half = len(names) // 2
        first, second = (self._surveyed(folder, shown, part, salt) for part in (names[:half], names[half:]))
        return first[0] + second[0], first[1] + second[1], first[2] + second[2]

    def _survey(
        self, folder: Path, shown: str, names: tuple[str, ...], salt: bytes
    ) -> tuple[list[Found], list[str]]:
        if not SUPPORTED:
            told = plain.guarded(plain.SURVEY, shown, Folder(folder, names), shown, salt, plain.LIMIT)
        else:
            seconds = SECONDS + SECONDS_A_FILE * len(names)
            asked = {
                "name": shown,
                "limit": plain.LIMIT,
                "seconds": seconds,
                "names": names,
                "salt": salt.hex(),
                "task": "survey",
            }
            told, _ = self._ask(folder, asked, seconds, lambda: False)
            if "code" in told:
                raise refusal(told)
        return [Found.of(record, names) for record in told["found"]], [names[int(at)] for at in told["damaged"]]

    def _ask(
        self, file: str | Path | bytes, asked: dict[str, Any], seconds: float, cancelled: Callable[[], object]
    ) -> tuple[dict[str, Any], list[int]]:
        """A reader's answer, and what keeps one from coming in words."""
        shown = asked["name"]
        with contents(file, shown) as descriptor, self._reader(cancelled, shown) as reader:
            try:
                told, descriptors = reader.ask(asked, descriptor, seconds, cancelled)
                reader.worn = bool(told.get("worn"))
            except TimeoutError as error:
                words = "it did not start" if not reader.ready else f"it took longer than {seconds:g} s"
                raise (ScanError if reader.ready else NotStarted)(
                    "too-slow", f"{shown}: given up, as {words}; upload a smaller file, or convert it to .nii.gz"
                ) from error
            except InterruptedError as error:
                raise ScanError(
                    "cancelled", f"{shown}: given up, as nobody waits for it; upload it again"
                ) from error
            except Gone as error:
                raise (ScanError if reader.ready else NotStarted)(
                    "reader-died",
                    f"{shown}: the program that reads this kind of file broke down over it "
                    f"({ended(reader.stop())}); export the scan again, or convert it to "
                    ".nii.gz",
                ) from error
            if told.get("code") == "too-much-memory":  # what is left of that reader is nobody's guess
                raise ScanError(str(told["code"]), str(told["message"]))
        return told, descriptors

    @contextlib.contextmanager
    def _reader(self, cancelled: Callable[[], object], shown: str) -> Iterator[Reader]:
        """A reader for one file: back among the idle ones afterwards, unless anything went wrong or it is worn."""
        reader = self._take(cancelled, shown)
        try:
            yield reader
        except BaseException:
            self._give(reader, well=False)
            raise
        self._give(reader, well=not reader.worn)

    def _take(self, cancelled: Callable[[], object], shown: str) -> Reader:
        with self.changed:
            while True:
                while self.idle:
                    reader = self.idle.pop()
                    if reader.alive:
                        return reader
                    reader.stop()
                    self.count -= 1
                if self.count < self.size:
                    self.count += 1
                    break
                self.changed.wait(LOOK)
                if cancelled():
                    raise ScanError("cancelled", f"{shown}: given up, as nobody waits for it; upload it again")
        try:
            return Reader()
        except BaseException:
            with self.changed:
                self.count -= 1
            raise

    def _give(self, reader: Reader, well: bool) -> None:
        if not well:
            reader.stop()
        now = time.monotonic()
        reader.rested = now
        with self.changed:
            if well:
                self.idle.append(reader)
            else:
                self.count -= 1
            old = [one for one in self.idle[:-1] if now - one.rested > IDLE]
            for one in old:
                self.idle.remove(one)
                self.count -= 1
            self.changed.notify()
        for one in old:
            one.stop()

    def close(self) -> None:
        """End those that wait for work; one that is at work ends with its file."""
        with self.changed:
            old, self.idle = self.idle, []
            self.count -= len(old)
        for one in old:
            one.stop()

    def forget(self) -> None:
        """In a forked child: these readers are the parent's. Their sockets would keep them alive after it."""
        for reader in self.idle:
            os.close(reader.end.detach())
            reader.process.returncode = 0  # not ours to wait for
        self._begin()


@contextlib.contextmanager
def contents(file: str | Path | bytes, shown: str) -> Iterator[int]:
    """A descriptor from which a reader can map the file."""
    if plain.in_memory(file):
        descriptor = memory.anonymous(0)
        with os.fdopen(os.dup(descriptor), "wb") as out:
            out.write(file)
    else:
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ScanError(
                "missing", f"{shown}: it cannot be opened ({error.strerror}); check its rights"
            ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def scan_of(told: dict[str, Any], descriptors: list[int], shown: str) -> Scan:
    """The answer as a `Scan`, its voxels mapped; nothing that a reader says is believed unseen."""
    try:
        if "code" in told:
            raise refusal(told)
        shape, dtype = tuple(map(int, told["shape"])), np.dtype(told["dtype"])
        count = int(np.prod(shape, dtype=object))
        good = dtype.str[1:] in TYPES and dtype.isnative and len(shape) in (2, 3) and 0 < count <= MAX_VOXELS
        if not good or len(descriptors) != 1:
            raise ScanError("reader-died", f"{shown}: its reader gave no sense; export the scan again")
        seal(descriptors[0])
        if os.fstat(descriptors[0]).st_size < count * dtype.itemsize:
            raise ScanError("reader-died", f"{shown}: its reader gave too little; export the scan again")
        block = memory.mapped(descriptors[0], count * dtype.itemsize)
        voxels = np.ndarray(shape, dtype, buffer=block, order=told["order"])
        return Scan(
            voxels,
            np.array(told["affine"], dtype=float),
            str(told["kind"]),
            dict(told["facts"]),
            told["acquisition"] and Acquisition.of(told["acquisition"]),
            tuple(Series.of(record) for record in told["series"]),
            told["source"] and Source.of(told["source"]),
        )
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def refusal(told: dict[str, Any]) -> ScanError:
    return ScanError(
        str(told["code"]), str(told["message"]), tuple(Series.of(one) for one in told.get("series", ()))
    )


def seal(descriptor: int) -> None:
    """Forbid that a block shrinks while it is mapped here: reading past its end would kill this process."""
    if hasattr(os, "memfd_create"):
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)


def ended(number: int) -> str:
    """How a process came to its end, for a person."""
    if number >= 0:
        return f"ended with {number}"
    return (
        signal.Signals(-number).name if -number in [each.value for each in signal.Signals] else f"signal {-number}"
    )


POOL = Readers()
read, survey, thumbnails, warm = POOL.read, POOL.survey, POOL.thumbnails, POOL.warm
atexit.register(POOL.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POOL.forget)
