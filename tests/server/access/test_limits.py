"""Bounds on open pages, with a clock that the test turns."""

from types import SimpleNamespace

import pytest
from tornado.httpserver import HTTPServer

from server.access import limits
from server.access.callers import Proxy, network_of
from server.access.limits import OpenPages


class Session:
    """As much of a PyWebIO session as is asked for."""

    def __init__(self):
        self.ended = False

    def closed(self) -> bool:
        return self.ended

    def send_task_command(self, command: dict) -> None:
        assert command["command"] == "close_session" and not self.ended

    def _on_task_command(self, session: "Session") -> None:
        self.told = True

    def close(self, nonblock: bool = False) -> None:
        self.ended = True


def test_one_client_may_open_so_many_pages_and_all_together_so_many():
    pages = OpenPages()
    for number in range(limits.PAGES):
        address = f"192.0.2.{number // limits.PAGES_A_CLIENT}"
        assert pages.why_not(address) is None
        pages.attach(Session(), address, "")
        if number == limits.PAGES_A_CLIENT - 1:
            assert "your machine has too many pages" in pages.why_not(address)
            assert pages.why_not("192.0.2.99") is None
    assert "too many pages are open" in pages.why_not("192.0.2.99")


def test_pages_whose_line_is_gone_make_way_the_oldest_first():
    clock = iter(range(1000)).__next__
    pages = OpenPages(clock=clock)
    sessions = [Session() for _ in range(limits.PAGES_A_CLIENT)]
    opened = [pages.attach(session, "192.0.2.1", "") for session in sessions]
    for number in (5, 2):
        pages.detach(opened[number])
    assert pages.why_not("192.0.2.1") is None
    assert [number for number, session in enumerate(sessions) if session.ended] == [5]
    pages.attach(Session(), "192.0.2.1", "")
    pages.attach(sessions[2], "192.0.2.1", "")  # it has come back
    assert pages.why_not("192.0.2.1") is not None and not sessions[2].ended


def test_signing_out_closes_that_browsers_pages_alone():
    pages = OpenPages()
    mine, yours, nobodys = Session(), Session(), Session()
    for session, visitor in ((mine, "me"), (yours, "you"), (nobodys, "")):
        pages.attach(session, "192.0.2.1", visitor)
    pages.sign_out("me")
    pages.sign_out("")
    assert (mine.ended, yours.ended, nobodys.ended) == (True, False, False)


class Stream:
    """As much of a connection as is asked for."""

    def __init__(self, descriptor: int):
        self.socket, self.over = SimpleNamespace(fileno=lambda: descriptor), False

    def closed(self) -> bool:
        return self.over


@pytest.fixture
def listening(monkeypatch):
    """A server with a thousand descriptors that tells who was heard and who was turned away."""
    made = limits.Listening(lambda request: None)
    made.descriptors, made.heard, made.turned = 1000, [], []
    monkeypatch.setattr(made, "turn_away", lambda stream, words: made.turned.append((stream, words)))
    monkeypatch.setattr(HTTPServer, "handle_stream", lambda self, stream, address: self.heard.append(stream))
    return made


@pytest.mark.parametrize(
    ("proxies", "address", "believed"),
    [
        (["10.0.0.0/28"], ("10.0.0.5", 4000), True),
        (["10.0.0.0/28"], ("::ffff:10.0.0.5", 4000, 0, 0), True),
        (["::1"], ("::1", 4000, 0, 0), True),
        (["2001:db8::/64"], ("2001:db8::7", 4000, 0, 0), True),
        (["2001:db8::7"], ("2001:db8::8", 4000, 0, 0), False),
        (["10.0.0.0/28"], ("10.0.0.99", 4000), False),
        (["10.0.0.0/28"], "", False),  # a socket of the machine's own has no address
        ([], ("127.0.0.1", 4000), False),
    ],
)
def test_what_is_told_of_an_address_is_believed_from_the_proxy_alone(
    listening, monkeypatch, proxies, address, believed
):
    listening.proxy = Proxy(None, [network_of(text) for text in proxies])
    monkeypatch.setattr(HTTPServer, "start_request", lambda self, *_: self.xheaders)
    line = SimpleNamespace(context=SimpleNamespace(address=address))
    assert listening.start_request(None, line) is believed


def test_the_last_64_descriptors_are_for_no_connection(listening):
    first, last, over = Stream(10), Stream(935), Stream(936)
    for stream in (first, last, over):
        listening.handle_stream(stream, ("192.0.2.1", 1))
    assert listening.heard == [first, last]
    assert listening.turned == [(over, "too many connections are open; try again in a minute")]


def test_half_of_the_descriptors_may_be_connections_and_a_quarter_of_those_one_clients(listening):
    streams = [Stream(10 + number) for number in range(501)]
    for number, stream in enumerate(streams[:126]):
        listening.handle_stream(stream, ("192.0.2.1", number))
    assert len(listening.heard) == 125 and "your machine has too many" in listening.turned[0][1]
    for number, stream in enumerate(streams[126:], 126):
        listening.handle_stream(stream, (f"192.0.2.{2 + number // 100}", number))
    assert len(listening.heard) == 500 and len(listening.turned) == 1
    late = Stream(900)
    listening.handle_stream(late, ("192.0.2.99", 1))
    assert listening.turned[1] == (late, "too many connections are open; try again in a minute")
    streams[0].over = True
    listening.handle_stream(late, ("192.0.2.99", 1))
    assert listening.heard[-1] is late


@pytest.mark.parametrize(
    ("proxy", "address", "counted"),
    [
        ("10.0.0.5", ("10.0.0.5", 1), False),
        ("::1", ("::1", 1, 0, 0), False),
        ("2001:db8::7", ("2001:db8::7", 1, 0, 0), False),
        ("2001:db8::7", ("2001:db8::8", 1, 0, 0), True),
        ("10.0.0.5", "", True),  # a socket of the machine's own
    ],
)
def test_those_who_come_by_the_proxy_do_not_share_one_clients_bound(listening, proxy, address, counted):
    listening.proxy = Proxy(None, [network_of(proxy)])
    for number in range(listening.a_client + 1):
        listening.handle_stream(Stream(10 + number), address)
    assert len(listening.turned) == counted
