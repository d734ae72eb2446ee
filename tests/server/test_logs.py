"""The log in a burst, with a clock that the test turns."""

import logging

from server.logs import Throttle


def test_a_burst_of_lines_is_counted_and_not_written():
    now = [0.0]
    throttle = Throttle(burst=5, period=10, clock=lambda: now[0])

    def say(name: str = "scanwise.access", level: int = logging.INFO) -> logging.LogRecord | None:
        record = logging.LogRecord(name, level, __file__, 1, "GET %s", ("/",), None)
        return record if throttle.filter(record) else None

    assert sum(say() is not None for _ in range(1000)) == 5
    assert say("scanwise", logging.ERROR) is not None  # of another kind
    now[0] = 11
    assert say().getMessage() == "(995 lines like this were left out before) GET /"
    assert say().getMessage() == "GET /"
