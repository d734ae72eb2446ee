"""The folder of scans in flight: held by one server, under names of its own, within its share of the disk.

Nothing here touches a file that another program or a person put there.
"""

import errno
import logging
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path

from scans.read import READERS, safe_name
from scans.scan import ScanError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt

log = logging.getLogger("scanwise")

OURS = re.compile(r"scanwise-[0-9a-f]{32}\.[a-z.]{2,12}")
LOCK = ".scanwise.lock"
SHARE = 20  # how many of the largest files the folder may hold
SPARE = 64 << 20  # bytes of the disk that stay free for everybody else
FAR = 1 << 30  # the byte that is locked on Windows, where locked bytes cannot be read


class NoRoom(Exception):
    """The folder cannot take a file: it is full, or gone, or cannot be written. The message is for the sender."""


@dataclass(frozen=True)
class Upload:
    path: Path
    name: str  # as the person's file is called: only ever shown back to that person
    ours: bool = True  # False for the example scan, which is not to be deleted


class Uploads:
    """Places for files, what they may take of the disk, and when they go. Several threads may ask at once."""

    def __init__(self, folder: Path, limit: int):
        self.folder = folder
        self.limit = limit  # bytes of one file
        self.trouble: str | None = None  # what housekeeping found last, in words
        self._taken: dict[Hashable, int] = {}  # bytes promised or held, by file or by form
        self._arriving: set[Path] = set()
        self._handle: int | None = None
        self._guard = threading.Lock()
        self.claim()
        self.sweep()

    # --- one owner ---------------------------------------------------------------------------------------

    def claim(self) -> None:
        """Take the folder for this process; ValueError where another server holds it or it cannot be used."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = self._locked()
        except OSError as error:
            why = error.strerror or error
            raise ValueError(
                f"{self.folder}: cannot hold uploads ({why}); choose another folder with --uploads"
            ) from error
        if handle is None:
            holder = self._holder()
            raise ValueError(
                f"{self.folder}: another server{holder} keeps its uploads here; stop it, or choose another folder "
                "with --uploads"
            )
        self._let_go()
        self._handle = handle

    def _locked(self) -> int | None:
        """The open and locked lock file, or None where another process has it."""
        path = self.folder / LOCK
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                _lock(handle)
                if fcntl is None or os.path.samestat(os.fstat(handle), path.stat()):
                    break
            except FileNotFoundError:  # whoever had it has just removed it
                pass
            except OSError as error:
                os.close(handle)
                if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                    return None
                raise
            os.close(handle)
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        return handle

    def _holder(self) -> str:
        try:
            number = (self.folder / LOCK).read_text(encoding="ascii")[:20]
        except (OSError, ValueError):
            return ""
        return f" (process {number})" if number.isdigit() else ""

    def _let_go(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def held(self) -> bool:
        """Whether the lock file is still the one that this server locked."""
        try:
            there = (self.folder / LOCK).stat()
        except OSError:
            return False
        return self._handle is not None and os.path.samestat(os.fstat(self._handle), there)

    # --- room --------------------------------------------------------------------------------------------

    def reserve(self, key: Hashable, size: int) -> None:
        """Promise `size` bytes in all to a file or form before it is sent; NoRoom where they are not there."""
        with self._guard:
            others = sum(taken for other, taken in self._taken.items() if other != key)
            if others + size > SHARE * self.limit:
                raise NoRoom(
                    f"no room for {_megabytes(size)} MB now: the scans in flight may take "
                    f"{_megabytes(SHARE * self.limit)} MB together; try again when others are done"
                )
            try:
                free = shutil.disk_usage(self.folder).free
            except OSError as error:
                raise self.lost(error) from error
            promised = sum(taken for other, taken in self._taken.items() if other in self._arriving) + size
            if free < promised + SPARE:
                raise NoRoom(
                    f"no room for {_megabytes(size)} MB: the server's disk is nearly full; tell whoever runs it"
                )
            self._taken[key] = size

    def release(self, key: Hashable) -> None:
        with self._guard:
            self._taken.pop(key, None)

    def lost(self, error: OSError) -> NoRoom:
        """The refusal for a write that failed, which housekeeping is told of too."""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        self.trouble = "the disk is full" if full else f"uploads cannot be written ({error.strerror or error})"
        words = (
            "the server's disk is full" if full else "the server's folder for uploads is gone or cannot be written"
        )
        return NoRoom(f"{words}; tell whoever runs it")

    # --- files -------------------------------------------------------------------------------------------

    def files(self) -> list[Path]:
        """The files of our naming that lie in the folder; none where it is gone."""
        try:
            return [path for path in self.folder.iterdir() if OURS.fullmatch(path.name) and path.is_file()]
        except OSError:
            return []

    @property
    def taken(self) -> int:
        with self._guard:
            return sum(self._taken.values())

    @property
    def count(self) -> int:
        return len(self.files())

    def new(self, name: str) -> Upload:
        """A place for a file called `name`, under a name of our own; ScanError where no reader takes its kind."""
        shown = safe_name(name)
        suffix = next((suffix for suffix in READERS if shown.lower().endswith(suffix)), None)
        if suffix is None:
            known = ", ".join(READERS)
            raise ScanError("unknown-type", f"{shown}: not a kind of file that can be read; send {known}")
        path = self.folder / f"scanwise-{secrets.token_hex(16)}{suffix}"
        self._arriving.add(path)
        return Upload(path, shown)

    def arrived(self, upload: Upload) -> bool:
        """All of it is there: from now on it goes when its time is up. False where it has gone already."""
        self._arriving.discard(upload.path)
        try:
            size = upload.path.stat().st_size
        except OSError:
            return False
        with self._guard:
            if upload.path in self._taken:
                self._taken[upload.path] = size
        return True

    def remover(self, upload: Upload) -> Callable[[object], None]:
        """What removes the upload once a job is done with it."""
        return lambda _: self.remove(upload)

    def remove(self, upload: Upload) -> None:
        if upload.ours:
            self._arriving.discard(upload.path)
            self._unlink(upload.path)

    def _unlink(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            # On Windows a job may still read it, and its end removes it; elsewhere the folder cannot be written.
            self.trouble = f"uploads cannot be removed ({error.strerror or error})"
            return
        self.release(path)

    def purge(self, seconds: float) -> None:
        """Remove what is older than the retention time; what still arrives has its own time-out."""
        for path in self.files():
            try:
                old = path not in self._arriving and time.time() - path.stat().st_mtime > seconds
            except FileNotFoundError:
                continue  # its owner was quicker
            if old:
                self._unlink(path)

    def keep_house(self, seconds: float) -> None:
        """Purge, and see whether the folder can still be used; what is wrong is told in `trouble`, not raised."""
        self.trouble = None
        try:
            if not self.held():
                self.claim()
                log.warning("the folder for uploads was gone and has been made again")
            self.purge(seconds)
            if not os.access(self.folder, os.W_OK | os.X_OK):
                self.trouble = "the folder for uploads cannot be written"
        except ValueError:
            self.trouble = "the folder for uploads is gone, or another server holds it"
        except OSError as error:
            self.trouble = f"the folder for uploads cannot be used ({error.strerror or error})"

    def sweep(self) -> None:
        """Remove everything of our naming: at the start, after a crash, and when the server stops."""
        for path in self.files():
            self._unlink(path)

    def close(self) -> None:
        """Sweep and leave the folder to whoever comes next."""
        self.sweep()
        if self.held() and fcntl is not None:
            (self.folder / LOCK).unlink(missing_ok=True)  # before it is unlocked: nobody else's can be hit
            self._let_go()
        else:
            self._let_go()
            if fcntl is None:
                (self.folder / LOCK).unlink(missing_ok=True)


def _lock(handle: int) -> None:
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    os.lseek(handle, FAR, os.SEEK_SET)
    msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    os.lseek(handle, 0, os.SEEK_SET)


def _megabytes(size: int) -> str:
    return f"{size / (1 << 20):.0f}" if size >= 1 << 20 else f"{size / (1 << 20):.1f}"
