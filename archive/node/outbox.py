"""Results that wait for an archive: files on disk, sent in order, tried again while the archive is away.

The box is bounded; a full one is told to those who send studies, so that nothing is taken in that could not be
answered.
"""

import secrets
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

TRIES = 10  # that a result which the archive refuses is sent
PAUSES = (1.0, 5.0, 15.0, 60.0, 300.0)  # seconds before the first, second and later new tries


class Away(Exception):
    """The archive cannot be reached; the message says how, without a name."""


class Refused(Exception):
    """The archive was reached and does not take a result."""


class Outbox:
    """The results for one archive, and the thread that sends them."""

    def __init__(
        self,
        folder: Path,
        limit: int,
        send: Callable[[list[Path], Callable[[Path], None]], None],
        tell: Callable[[str], None],
        pauses: tuple[float, ...] = PAUSES,
    ):
        self.folder, self.limit, self.send, self.tell, self.pauses = folder, limit, send, tell, pauses
        self.sent = self.lost = 0
        self.away: str | None = None  # why the archive cannot be reached, since when it cannot
        self._tries: dict[str, int] = {}  # by batch
        self._stop, self._wake = threading.Event(), threading.Event()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for part in folder.glob(".*"):  # batches that were being written when the node was killed
            shutil.rmtree(part)
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)

    # --- what waits --------------------------------------------------------------------------------------

    def batches(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if not path.name.startswith("."))

    @property
    def waiting(self) -> list[Path]:
        return [file for batch in self.batches() for file in sorted(batch.glob("*.dcm"))]

    @property
    def full(self) -> bool:
        sizes = []
        for file in self.waiting:
            try:
                sizes.append(file.stat().st_size)
            except FileNotFoundError:  # sent meanwhile
                continue
        return sum(sizes) >= self.limit

    def put(self, number: int, bodies: dict[str, bytes]) -> None:
        """Keep the results of one study until they are sent. OSError where the disk does not take them."""
        name = f"{number:012d}-{secrets.token_hex(4)}"
        hidden = self.folder / f".{name}"
        try:
            hidden.mkdir(mode=0o700)
            for kind, body in bodies.items():
                (hidden / f"{kind}.dcm").write_bytes(body)
        except OSError:
            shutil.rmtree(hidden, ignore_errors=True)
            raise
        hidden.replace(self.folder / name)
        self._wake.set()

    # --- sending -----------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float = 10.0) -> None:
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            self._wake.clear()
            failures = 0 if self.deliver() else failures + 1
            if self._stop.is_set():
                return
            pause = self.pauses[min(failures, len(self.pauses)) - 1] if failures else None
            self._wait(pause)

    def _wait(self, pause: float | None) -> None:
        """Until there is something new to send; after a failure for so many seconds whatever comes."""
        if pause is None:
            self._wake.wait()
        else:
            self._stop.wait(pause)

    def deliver(self) -> bool:
        """Send what waits, the oldest study first; False where something is left that is to be tried again."""
        well = True
        for batch in self.batches():
            if self._stop.is_set():
                return True
            try:
                self.send(sorted(batch.glob("*.dcm")), self._accepted)
                shutil.rmtree(batch)
                self._tries.pop(batch.name, None)
                self._back()
            except Away as error:
                self._gone(str(error))
                return False
            except Refused as error:
                self._back()
                well = self._refused(batch, str(error)) and well
        return well

    def _accepted(self, file: Path) -> None:
        file.unlink()
        self.sent += 1

    def _back(self) -> None:
        if self.away is not None:
            self.away = None
            self.tell("the archive is back")

    def _gone(self, why: str) -> None:
        if self.away is None:
            self.tell(f"the archive is away ({why}); {len(self.waiting)} results wait and are sent later")
        self.away = why

    def _refused(self, batch: Path, why: str) -> bool:
        """Count one more try in vain; True where it was the last and the results are dropped."""
        tries = self._tries[batch.name] = self._tries.get(batch.name, 0) + 1
        if tries < TRIES:
            return False
        left = len(list(batch.glob("*.dcm")))
        shutil.rmtree(batch)
        del self._tries[batch.name]
        self.lost += left
        self.tell(f"the archive refused {left} results {TRIES} times ({why}); they are dropped")
        return True
