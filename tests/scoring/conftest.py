"""The tiny studies, for every test that trains one to score it."""

import pytest
import torch

from tests.tiny_cohorts import registered


@pytest.fixture(autouse=True)
def tiny():
    threads = torch.get_num_threads()
    with registered():
        yield
    torch.set_num_threads(threads)
