"""Many machines by one command: actors on a Ray cluster, each with a warm diagnoser, share the list of scans.

Each machine has the program in the same place, and the scans under the same paths or addresses. What an actor
has in hand when it or its machine dies goes to the others; what kills one again and again is refused.
"""

import socket
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cohorts.inputs import InputError, Item
from cohorts.judge import Plan
from scans.read import safe_name
from scans.scan import ScanError

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 10.0  # seconds for a cluster to answer at its address
IN_HAND = 2  # scans that an actor works on at once: one is read while the other is judged
WAITING = 2  # scans that wait at an actor, so that it never waits
TRIES = 5  # actors that a scan may take along before it is refused

Refusal = Callable[[Item, ScanError], dict[str, Any]]
Work = tuple[Item, str | None]  # a scan, and the content of the row that it has already


class Worker:
    """What each actor holds."""

    def __init__(self, plan: Plan):
        self.judge = plan.open()

    def ready(self) -> None:
        """An answer as soon as the network is there."""

    def work(self, item: Item, known: str | None) -> dict[str, Any] | None:
        return self.judge(item, known)


def in_actors(
    plan: Plan, refused: Refusal, work: Iterator[Work], address: str, actors: int = 0
) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Each scan's file and record, as they are done; `refused` makes the record of one that nobody survives."""
    ray = connected(address)
    try:
        yield from _Crew(ray, plan, refused, actors).through(work)
    finally:
        ray.shutdown()


def connected(address: str) -> Any:
    """Ray, on the cluster at the address; without one, on a cluster of this machine alone."""
    try:
        import ray  # most never need it
        from ray.job_config import JobConfig
    except ImportError as error:
        raise InputError("--ray needs Ray: `pip install -r requirements-ray.txt`") from error
    try:
        host, colon, port = address.removeprefix("ray://").partition(":")
        if colon:  # else Ray would try for minutes
            socket.create_connection((host, int(port)), PATIENCE).close()
        ray.init(address or "local", log_to_driver=False, job_config=JobConfig(code_search_path=[str(ROOT)]))
    except (OSError, ValueError) as error:
        raise InputError(f"--ray {address}: no cluster there ({str(error)[:200]}); see `ray status`") from error
    return ray


class _Crew:
    """The actors, what each has in hand, and what waits to be given out again."""

    def __init__(self, ray: Any, plan: Plan, refused: Refusal, actors: int):
        self.ray, self.plan, self.refused = ray, plan, refused
        resources = ray.cluster_resources()
        self.gpus = int(resources.get("GPU", 0)) if plan.device != "cpu" else 0
        self.size = actors or self.gpus or max(1, int(resources.get("CPU", 1)))
        self.hands = IN_HAND + (plan.batch if self.gpus else 0)
        self.starting: dict[Any, Any] = {}  # reference of `ready` → actor
        self.pending: dict[Any, tuple[Any, Work]] = {}  # reference → actor, scan
        self.load: dict[Any, int] = {}  # actor → scans it has
        self.again: deque[Work] = deque()
        self.deaths: dict[str, int] = {}  # file → actors that it took along
        for _ in range(self.size):
            self._hire()

    def _hire(self) -> None:
        made = self.ray.remote(Worker).options(
            num_cpus=1, num_gpus=1 if self.gpus else 0, max_concurrency=self.hands, max_restarts=0
        )
        actor = made.remote(self.plan)
        self.starting[actor.ready.remote()] = actor

    def through(self, work: Iterator[Work]) -> Iterator[tuple[str, dict[str, Any] | None]]:
        more = True
        while more or self.pending or self.again:
            more = self._give(work, more)
            if not (self.pending or self.again or more):
                return
            done, _ = self.ray.wait([*self.pending, *self.starting], num_returns=1)
            for reference in done:
                if reference in self.starting:
                    self._started(reference)
                else:
                    yield from self._done(reference)

    def _give(self, work: Iterator[Work], more: bool) -> bool:
        """Fill every actor's hands, first with what another dropped; whether the list goes on."""
        for actor in sorted(self.load, key=self.load.__getitem__):
            while self.load[actor] < self.hands + WAITING:
                one = self.again.popleft() if self.again else next(work, None) if more else None
                if one is None:
                    return False
                self.pending[actor.work.remote(*one)] = (actor, one)
                self.load[actor] += 1
        return more

    def _started(self, reference: Any) -> None:
        actor = self.starting.pop(reference)
        try:
            self.ray.get(reference)
        except self.ray.exceptions.RayActorError as error:
            if not (self.load or self.starting):
                raise InputError(f"no actor could be started: {str(error)[:400]}") from error
            return
        except self.ray.exceptions.RayTaskError as error:
            raise InputError(f"an actor could not be made ready: {error.cause}") from error
        self.load[actor] = 0

    def _done(self, reference: Any) -> Iterator[tuple[str, dict[str, Any] | None]]:
        actor, one = self.pending.pop(reference)
        item = one[0]
        try:
            record = self.ray.get(reference)
        except self.ray.exceptions.RayActorError:
            if self.load.pop(actor, None) is not None:
                self._hire()  # where there is room for it, now or later
            self.deaths[item.file] = self.deaths.get(item.file, 0) + 1
            if self.deaths[item.file] < TRIES:
                self.again.append(one)
                return
            words = f"{safe_name(item.file)}: whoever judged it died, {TRIES} times; look at it by itself"
            yield item.file, self.refused(item, ScanError("worker-died", words))
            return
        self.load[actor] -= 1
        yield item.file, record
