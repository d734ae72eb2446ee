"""How far a cohort is."""

import io

import pytest

from cohorts import progress
from cohorts.progress import Progress, span


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_without_a_terminal_there_is_a_line_a_minute(monkeypatch):
    now, out = [1000.0], io.StringIO()
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    told = Progress(1000, out)
    told.kept()
    for step in range(240):
        now[0] += 0.5
        told.count(step % 100 == 0)
    told.close()
    # one was there, 120 are judged in the first minute, two a second: 879 are left
    assert out.getvalue().splitlines() == [
        "121 of 1,000 scans (12 %), 2.0 a second, 7 min left, 2 refused",
        "241 of 1,000 scans (24 %), 2.0 a second, 6 min left, 3 refused",
    ]


def test_on_a_terminal_there_is_a_bar():
    out = Terminal()
    told = Progress(3, out)
    told.kept()
    told.count(False)
    told.count(True)
    told.close()
    assert "3/3" in out.getvalue() and "1 refused" in out.getvalue() and "\n" in out.getvalue()


def test_before_the_first_scan_no_time_is_promised():
    assert "time left unknown" in Progress(5, io.StringIO()).line(progress.time.monotonic() + 5)


@pytest.mark.parametrize(
    ("seconds", "said"), [(59, "59 s"), (119, "119 s"), (600, "10 min"), (7200, "2 h"), (864000, "10 d")]
)
def test_a_time_is_said_as_people_say_it(seconds, said):
    assert span(seconds) == said
