"""The log: what is said in a burst is said a few times and then counted, so that nobody can fill the disk."""

import logging
import time
from collections.abc import Callable

BURST = 60  # lines of one kind
PERIOD = 10.0  # within so many seconds; what comes on top is counted


class Throttle(logging.Filter):
    """Lets through so many lines of a logger and level in each period, and says how many it kept back."""

    def __init__(self, burst: int = BURST, period: float = PERIOD, clock: Callable[[], float] = time.monotonic):
        super().__init__()
        self.burst, self.period, self.clock = burst, period, clock
        self._seen: dict[tuple[str, int], list[float]] = {}  # period's start, lines let through, lines kept back

    def filter(self, record: logging.LogRecord) -> bool:
        now = self.clock()
        key = record.name.split(".")[0] + ".access" * record.name.endswith(".access"), record.levelno
        seen = self._seen.setdefault(key, [now, 0, 0])
        if now - seen[0] >= self.period:
            if seen[2]:
                record.msg = f"({seen[2]:.0f} lines like this were left out before) {record.msg}"
            seen[:] = now, 0, 0
        seen[1 if seen[1] < self.burst else 2] += 1
        return not seen[2]


def begin() -> None:
    """Write to standard error, a line an event, without addresses."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(Throttle())
    logging.getLogger("pywebio").setLevel(logging.ERROR)  # it warns of every page that closes
    logging.getLogger("tornado.general").setLevel(logging.WARNING)  # its lines name the sender's address
