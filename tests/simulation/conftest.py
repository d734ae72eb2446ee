"""Heads of several severities, drawn once."""

import pytest

from simulation import phantom
from tests.simulated import SEVERITIES


@pytest.fixture(scope="module")
def aged():
    """Plain heads by severity; alike but for it."""
    return {severity: phantom.render(phantom.plain(severity)) for severity in SEVERITIES}
