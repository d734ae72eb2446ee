"""A siege of the server over raw HTTP and websockets: what it answers and leaves, and whether others are served.

    python -m benchmarks.siege [--scale 1.0] [--only WORD]

Everything stays on this machine's loopback and is bounded; the server is a process of its own, with untrained
weights and short time-outs. `tests/test_siege.py` runs the same trials smaller. May import `tests.support`.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.siege import connections, pages, passwords, requests, uploads
from benchmarks.siege.client import LIMIT, PASSWORD, TIMEOUT, Trial
from tests.support import Server, phantom, running, save_nifti, untrained

TRIALS: dict[str, Callable[[Server, float], Trial]] = {
    trial.__name__.replace("_", " "): trial
    for trial in (
        requests.broken_requests,
        requests.heads,
        requests.files_not_served,
        connections.idle_connections,
        connections.slow_heads,
        uploads.bodies_that_stop,
        uploads.aborted_uploads,
        uploads.unfinished_uploads,
        uploads.forms,
        uploads.folder_gone,
        pages.files_of_a_page,
        passwords.signing_out,
        pages.silent_pages,
        pages.odd_messages,
        passwords.guesses,
        connections.stopping,  # the last, as nothing answers afterwards
    )
}


@contextlib.contextmanager
def besieged(folder: Path, weights: Path | None = None) -> Iterator[Server]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "password").write_text(PASSWORD, encoding="utf-8")
    save_nifti(folder / "head.nii.gz", *phantom(4.0))
    options = [
        "--weights", weights or untrained(folder / "weights"), "--password-file", folder / "password",
        "--max-upload", str(LIMIT), "--workers", "1", "--queue", "6", "--timeout", str(TIMEOUT), "--keep", "0.2",
    ]  # fmt: skip
    with running(folder, *options) as server:
        yield server
