"""How far long work is: a bar on a terminal, and a line a minute where what is said goes into a file or a pipe."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any

from tqdm import tqdm

PERIOD = 60.0  # seconds between two lines


class Lines:
    """What of tqdm is used here, as plain lines."""

    disable = False

    def __init__(
        self,
        items: Iterable[Any] = (),
        title: str = "",
        total: int | None = None,
        unit: str = "step",
        initial: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.items, self.title, self.unit, self.clock = items, title or "at work", unit, clock
        self.total = len(items) if total is None and isinstance(items, Sized) and items else total
        self.done, self.more = initial, ""
        self.began = self.told = clock()
        self.initial = initial

    def __iter__(self) -> Iterator[Any]:
        for item in self.items:
            yield item
            self.update()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def set_postfix(self, **values: str) -> None:
        self.more = "".join(f", {name} {value}" for name, value in values.items())

    def update(self, count: int = 1) -> None:
        self.done += count
        now = self.clock()
        if now - self.told < PERIOD:
            return
        self.told, spent = now, now - self.began
        of = f" of {self.total}" if self.total else ""
        left = ""
        if self.total and self.done > self.initial:
            seconds = spent * (self.total - self.done) / (self.done - self.initial)
            left = f", about {seconds / 60:.0f} min left" if seconds >= 30 else ""
        line = f"{self.title}: {self.done}{of} {self.unit}s, {spent / 60:.0f} min{left}{self.more}"
        print(line, file=sys.stderr, flush=True)


def progress(
    items: Iterable[Any] = (),
    title: str = "",
    total: int | None = None,
    unit: str = "step",
    initial: int = 0,
    quiet: bool = False,
    leave: bool = True,
) -> Any:
    """Goes through items, or counts by `update`, and tells how far it is."""
    if quiet or sys.stderr.isatty():
        given = None if items == () else items
        return tqdm(given, title, total, unit=unit, initial=initial, disable=quiet, leave=leave)
    return Lines(items, title, total, unit, initial)
