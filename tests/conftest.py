"""Fixtures for every test file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Server, phantom, running, save_nifti, untrained


@pytest.fixture(scope="session")
def head_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom, stored with the axes left, inferior, anterior."""
    return save_nifti(tmp_path_factory.mktemp("head") / "head.nii.gz", *phantom(), "LIA")


@pytest.fixture(scope="session")
def weights_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, weights_folder: Path, head_file: Path) -> Iterator[Server]:
    """One server for the tests of a module, offering the phantom as its example."""
    with running(
        tmp_path_factory.mktemp("server"),
        "--weights",
        weights_folder,
        "--example",
        head_file,
        "--max-upload",
        "110",
        "--workers",
        "1",
    ) as started:
        yield started
