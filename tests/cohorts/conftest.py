"""Fixtures of the cohorts' tests."""

from pathlib import Path

import pytest

from diagnosis.diagnoser import Diagnoser
from tests import small_scans


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory) -> Path:
    return small_scans.weights(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def bids(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bids")
    small_scans.dataset(folder)
    return folder


@pytest.fixture(scope="session")
def diagnoser(small_weights) -> Diagnoser:
    return Diagnoser(small_weights, "cpu")
