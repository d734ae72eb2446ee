"""One process or many under torchrun, and how they all stop together when one of them is told to."""

import os
import signal
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist


class Interrupted(Exception):
    """Ctrl-C or SIGTERM; the last epoch's checkpoint is whole."""


def world() -> tuple[int, int]:
    """This process's rank and the number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def join(device: torch.device) -> torch.device:
    """Joins the other processes that torchrun started, if it did; the device of this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # The first process may read and prepare scans for hours before the others hear of it.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store, rank, size = next(dist.rendezvous("env://", timeout=timedelta(minutes=10)))
    dist.init_process_group(backend, store=own(store), rank=rank, world_size=size, timeout=timedelta(hours=24))
    return device


def own(store: dist.Store) -> dist.Store:
    """The store of this start alone, where one torchrun keeps a store for all its starts.

    What processes that are gone wrote in it would be read by those that come after them, which then wait for a
    port that nobody listens on. Several torchruns do not count their starts alike; see docs/researcher.md.
    """
    if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        return store
    return dist.PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def shared(value: Any) -> Any:
    """The first process's value, in every process."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


class Halt:
    """Notes Ctrl-C and SIGTERM for the next step to see; a second one ends the process at once."""

    def __init__(self) -> None:
        self.signal = 0

    def __enter__(self) -> "Halt":
        self.before = {s: signal.signal(s, self.note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def note(self, number: int, _: object) -> None:
        self.signal = number
        signal.signal(number, signal.SIG_DFL)

    def check(self) -> None:
        """Raises Interrupted in every process once one of them was told to stop."""
        if dist.is_initialized():
            flag = torch.tensor(self.signal)
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
            self.signal = int(flag)
        if self.signal:
            raise Interrupted
