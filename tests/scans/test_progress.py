"""Progress: a bar on a terminal, a line a minute elsewhere, nothing where nothing was asked."""

import io
import sys

import pytest

from scans.progress import Lines, progress


class Clock:
    """Twenty seconds pass between two looks."""

    def __init__(self):
        self.now = -20.0

    def __call__(self) -> float:
        self.now += 20
        return self.now


def test_a_line_a_minute(capsys):
    lines = Lines(range(10), "preparing", unit="scan", clock=Clock())
    for number in lines:
        lines.set_postfix(loss=f"0.{number}")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "preparing: 3 of 10 scans, 1 min, about 2 min left, loss 0.2",
        "preparing: 6 of 10 scans, 2 min, about 1 min left, loss 0.5",
        "preparing: 9 of 10 scans, 3 min, loss 0.8",
    ]


def test_work_of_unknown_length_and_work_that_goes_on(capsys):
    with Lines(title="search", unit="record", clock=Clock()) as lines:
        lines.update(40)
        lines.update(40)
        lines.update(40)
    assert capsys.readouterr().err == "search: 120 records, 1 min\n"
    lines = Lines(total=100, initial=70, clock=Clock())
    for _ in range(3):
        lines.update(5)
    assert capsys.readouterr().err == "at work: 85 of 100 steps, 1 min, about 1 min left\n"


@pytest.mark.parametrize(
    ("terminal", "quiet", "bar"), [(True, False, True), (False, False, False), (True, True, False)]
)
def test_a_bar_is_for_terminals(monkeypatch, terminal, quiet, bar):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress(range(3), "reading", quiet=quiet)) == [0, 1, 2]
    assert ("reading" in stream.getvalue()) == bar
    assert ("\r" in stream.getvalue()) == bar
