"""Instances that were received and wait until their study is complete: files under names that tell nothing.

A study is complete when nothing more of it came for a quiet time, from associations that ended as they should. One
whose sender broke off waits longer for the sender to come again, and is then dropped: a head that misses its end
must not be judged as if it were whole.
"""

import hashlib
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path

SPARE = 64 << 20  # bytes of the disk that stay free for everybody else
STILL_OPEN = 3  # quiet times after which an association that is open but silent is not waited for
FORSAKEN = 10  # quiet times that a study whose sender broke off waits for the rest
REMEMBERED = 1000  # studies answered last, of which copies that come again are known
WELL = ".ended-well"  # a study's mark that its last association ended as it should, for a node that starts again


class NoRoom(Exception):
    """An instance cannot be kept; the message says why."""


@dataclass(eq=False)
class Study:
    """One study on its way: not yet judged."""

    key: str
    folder: Path
    last: float  # when the last of it came
    sizes: dict[str, int] = field(default_factory=dict)  # of its files, by name
    senders: set[Hashable] = field(default_factory=set)  # associations that are still open
    broken: bool = False

    @property
    def files(self) -> list[Path]:
        return [self.folder / name for name in sorted(self.sizes)]

    @property
    def size(self) -> int:
        return sum(self.sizes.values())


class Incoming:
    """The studies on their way. Several associations may bring instances at once."""

    def __init__(self, folder: Path, limit: int, quiet: float, clock: Callable[[], float] = time.monotonic):
        self.folder, self.limit, self.quiet, self.clock = folder, limit, quiet, clock
        self.studies: dict[str, Study] = {}
        self.answered: OrderedDict[str, set[str]] = OrderedDict()
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in sorted(folder.iterdir()):
            self._resume(left)

    def _resume(self, folder: Path) -> None:
        """What was received before the node last stopped. Its senders were told that it is safe."""
        for part in folder.glob("*.part"):
            part.unlink()
        sizes = {file.name: file.stat().st_size for file in folder.glob("*.dcm")}
        key = folder.name.partition(".")[0]
        if not sizes or key in self.studies:
            shutil.rmtree(folder)
            return
        broken = not (folder / WELL).exists()
        self.studies[key] = Study(key, folder, self.clock(), sizes, broken=broken)

    @property
    def taken(self) -> int:
        return sum(study.size for study in list(self.studies.values()))

    def take(self, study_uid: str, instance_uid: str, body: bytes, sender: Hashable) -> None:
        """Keep an instance; one that comes twice takes its own place. NoRoom where it cannot be kept."""
        key, name = digest(study_uid), f"{digest(instance_uid)}.dcm"
        with self._lock:
            if self.taken + len(body) > self.limit:
                raise NoRoom(f"{self.limit >> 20} MB wait to be judged already")
            if shutil.disk_usage(self.folder).free < len(body) + SPARE:
                raise NoRoom("the disk is full")
            study = self.studies.get(key)
            try:
                if study is None:
                    folder = self.folder / f"{key}.{secrets.token_hex(4)}"
                    folder.mkdir(mode=0o700)
                    study = self.studies[key] = Study(key, folder, self.clock())
                (study.folder / WELL).unlink(missing_ok=True)
                part = study.folder / f"{name}.part"
                part.write_bytes(body)
                part.replace(study.folder / name)
            except OSError as error:
                if study is not None:
                    (study.folder / f"{name}.part").unlink(missing_ok=True)
                raise NoRoom(f"it cannot be written ({error.strerror})") from error
            study.sizes[name] = len(body)
            study.senders.add(sender)
            study.last = self.clock()

    def ended(self, sender: Hashable, well: bool) -> None:
        """An association is over; what it brought is whole only where it ended as it should."""
        with self._lock:
            for study in self.studies.values():
                if sender in study.senders:
                    study.senders.discard(sender)
                    study.broken = not well
                    if well:
                        (study.folder / WELL).touch()

    def due(self) -> list[tuple[Study, bool]]:
        """The studies that need be waited for no longer, and whether each is whole; they are the caller's now."""
        now, found = self.clock(), []
        with self._lock:
            for key, study in list(self.studies.items()):
                silent = (now - study.last) / max(self.quiet, 1e-6)
                times = FORSAKEN if study.broken else STILL_OPEN if study.senders else 1
                if study.sizes and silent >= times:
                    del self.studies[key]
                    found.append((study, not study.broken))
        return found

    def again(self, study: Study) -> None:
        """Take a study back that could not be answered now; it is due again after another quiet time."""
        with self._lock:
            study.last = self.clock()
            if self.studies.setdefault(study.key, study) is not study:  # the sender began anew meanwhile
                shutil.rmtree(study.folder, ignore_errors=True)

    def known(self, study: Study) -> bool:
        """Whether all of it was answered before: the sender sent it again."""
        return set(study.sizes) <= self.answered.get(study.key, set())

    def done(self, study: Study, answered: bool) -> None:
        """Delete all of a study that was received."""
        shutil.rmtree(study.folder, ignore_errors=True)
        if answered:
            self.answered.setdefault(study.key, set()).update(study.sizes)
            self.answered.move_to_end(study.key)
            while len(self.answered) > REMEMBERED:
                self.answered.popitem(last=False)


def digest(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:32]
