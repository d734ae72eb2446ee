"""The names that a server answers to."""

import pytest

from server.access.hosts import host_allowed, hosts


@pytest.mark.parametrize(
    ("bound", "extra", "host", "right"),
    [
        ("127.0.0.1", [], "localhost:8080", True),
        ("127.0.0.1", [], "127.0.0.1", True),
        ("127.0.0.1", [], "[::1]:8080", True),
        ("127.0.0.1", [], "192.0.2.1", False),
        ("127.0.0.1", [], "evil.example", False),
        ("127.0.0.1", ["Scans.Example"], "scans.example:443", True),
        ("0.0.0.0", [], "192.0.2.1:8080", True),
        ("0.0.0.0", [], "evil.example", False),
        ("127.0.0.1", [], "", False),
        ("127.0.0.1", [], "[::1", False),
    ],
)
def test_a_name_that_nobody_gave_is_not_answered(bound, extra, host, right):
    assert host_allowed(host, hosts(bound, extra)) is right
