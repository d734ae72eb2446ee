"""Many scans at once on one machine: threads that each judge one scan, its network on one processor core.

One network on several cores leaves them idle while a scan is read, prepared and checked; several scans, each on
a core, do not. Files are read in reader processes meanwhile, so there is a thread more than there are cores. On
a GPU the threads' scans go through the network together.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

import torch
from torch import Tensor

from networks.forward import Forward

T = TypeVar("T")
A = TypeVar("A")
BATCH = 8  # scans that a GPU takes at once, unless told otherwise


def threads_for(device: torch.device, batch: int = BATCH) -> int:
    """How many scans to have in hand: one a core, one that is being read, on a GPU a batch that waits."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + (batch if device.type == "cuda" else 1)


def in_threads(work: Callable[[A], T], items: Iterator[A], threads: int) -> Iterator[T]:
    """What `work` makes of each item, as it is done; never more items in hand than threads.

    Whatever `work` raises ends it, once those in hand are done; so does the caller's leaving.
    """
    torch.set_num_threads(1)
    with ThreadPoolExecutor(threads, "scan", initializer=torch.set_num_threads, initargs=(1,)) as pool:
        running: set[Future[T]] = set()
        for item in items:
            running.add(pool.submit(work, item))
            if len(running) >= threads:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for one in done:
                    yield one.result()
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for one in done:
                yield one.result()


class Batched(Forward):
    """A `Forward` whose `base` gathers what several threads ask at once into one pass.

    Nobody waits for others to come: whoever finds the device free takes along all that has gathered meanwhile.
    """

    def __init__(self, forward: Forward, size: int = BATCH):
        self.__dict__.update(vars(forward))
        self.size = size
        self._waiting: list[_Request] = []
        self._guard, self._device = threading.Lock(), threading.Lock()

    def base(self, x: Tensor) -> Tensor:
        mine = _Request(x.to(self.device))
        with self._guard:
            self._waiting.append(mine)
        while mine.answer is None and mine.error is None:
            with self._device:
                if mine.answer is None and mine.error is None:
                    self._pass()
        if mine.error is not None:
            raise mine.error
        assert mine.answer is not None
        return mine.answer

    def _pass(self) -> None:
        """One pass for those who have waited longest."""
        with self._guard:
            batch, self._waiting = self._waiting[: self.size], self._waiting[self.size :]
        try:
            answers = super().base(torch.cat([request.x for request in batch]))
            start = 0
            for request in batch:
                request.answer = answers[start : start + len(request.x)].clone()
                start += len(request.x)
        except Exception as error:  # each of them is told
            for request in batch:
                request.error = error


class _Request:
    """One thread's input, and what came of it."""

    def __init__(self, x: Tensor):
        self.x = x
        self.answer: Tensor | None = None
        self.error: Exception | None = None
