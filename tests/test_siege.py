"""The siege of `benchmarks/siege/`, smaller: every trial against one server, which must hold."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import siege
from tests.support import Server


@pytest.fixture(scope="module")
def besieged(tmp_path_factory: pytest.TempPathFactory, weights_folder: Path) -> Iterator[Server]:
    with siege.besieged(tmp_path_factory.mktemp("siege"), weights_folder) as server:
        yield server


@pytest.mark.parametrize("name", siege.TRIALS)  # the last of them stops the server
def test_the_server_holds(besieged: Server, name: str):
    assert siege.TRIALS[name](besieged, 0.1).wrong == []
