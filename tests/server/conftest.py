"""The API's fixtures."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Server, running


@pytest.fixture(scope="module")
def head(head_file: Path) -> bytes:
    return head_file.read_bytes()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, weights_folder: Path) -> Iterator[Server]:
    """A server with a password, files of at most 1 MB, one worker and no queue."""
    folder = tmp_path_factory.mktemp("strict")
    (folder / "password").write_text("open sesame\n")
    with running(
        folder,
        "--weights",
        weights_folder,
        "--password-file",
        folder / "password",
        "--max-upload",
        "1",
        "--workers",
        "1",
        "--queue",
        "0",
        "--allow-host",
        "scans.example",
    ) as started:
        yield started
