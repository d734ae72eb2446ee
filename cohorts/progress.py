"""How far a cohort is: a bar with rate and time left where a person looks on, else a line a minute."""

import sys
import time
from typing import TextIO

from tqdm import tqdm

EVERY = 60.0  # seconds between two lines where no terminal is


class Progress:
    """Counts scans; `total` are all, `done` of them were there already."""

    def __init__(self, total: int, out: TextIO | None = None):
        self.total, self.out = total, out or sys.stderr
        self.done = self.judged = self.refused = 0
        self.start = self.told = time.monotonic()
        self.bar = tqdm(total=total, unit="scan", file=self.out, smoothing=0.05) if self.out.isatty() else None

    def kept(self) -> None:
        """A scan whose row stands."""
        self.done += 1
        if self.bar is not None:
            self.bar.initial += 1  # it says nothing of the rate
            self.bar.update()
        self._tell()

    def count(self, refused: bool) -> None:
        """A scan that was judged, or refused."""
        self.done, self.judged, self.refused = self.done + 1, self.judged + 1, self.refused + refused
        if self.bar is not None:
            self.bar.update()
            if refused:
                self.bar.set_postfix_str(f"{self.refused} refused", refresh=False)
        self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        if self.bar is None and now - self.told >= EVERY:
            self.told = now
            print(self.line(now), file=self.out, flush=True)

    def line(self, now: float) -> str:
        """Where it stands, in words."""
        rate = self.judged / max(now - self.start, 1e-9)
        left = f"{span((self.total - self.done) / rate)} left" if rate else "time left unknown"
        share = 100 * self.done / max(self.total, 1)
        return (
            f"{self.done:,} of {self.total:,} scans ({share:.0f} %), {rate:.1f} a second, {left}, "
            f"{self.refused:,} refused"
        )

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def span(seconds: float) -> str:
    """A time to wait, as a person says it."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
