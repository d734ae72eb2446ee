"""The password: guesses are counted, browsers are forgotten, and every client's bytes are understood."""

import pytest

from server.access import signin
from server.access.signin import SignIn


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def guess(sign_in: SignIn, times: int, address: str = "192.0.2.1") -> list[float]:
    waits = []
    for _ in range(times):
        waits.append(sign_in.wait(address))
        if not waits[-1]:
            sign_in.right(b"guess", address)
    return waits


def test_an_address_may_guess_ten_times_and_then_waits(clock):
    sign_in = SignIn("open sesame", clock)
    waits = guess(sign_in, 12)
    assert waits[:10] == [0] * 10 and waits[10:] == [300, 300]
    assert sign_in.wait("192.0.2.2") == 0
    clock.now += 299
    assert sign_in.wait("192.0.2.1") == pytest.approx(1)
    clock.now += 1
    assert sign_in.wait("192.0.2.1") == 0 and sign_in.right(b"open sesame", "192.0.2.1")


def test_many_addresses_together_guess_no_more_than_a_hundred_times(clock):
    sign_in = SignIn("open sesame", clock)
    assert sign_in.right(b"open sesame", "198.51.100.7")
    tried = sum(guess(sign_in, 1, f"192.0.{n // 250}.{n % 250}") == [0] for n in range(500))
    assert tried == 100
    assert sign_in.wait("203.0.113.5") > 0
    assert sign_in.wait("198.51.100.7") == 0  # who gave the right one before is not kept out by strangers


def test_the_right_password_is_not_counted(clock):
    sign_in = SignIn("open sesame", clock)
    assert all(sign_in.right(b"open sesame", "192.0.2.1") for _ in range(200))
    assert sign_in.wait("192.0.2.1") == 0


def test_an_ipv6_household_is_one(clock):
    sign_in = SignIn("open sesame", clock)
    for host in range(1, 11):
        sign_in.right(b"guess", f"2001:db8::{host:x}")
    assert sign_in.wait("2001:db8::ffff") > 0 and sign_in.wait("2001:db8:0:1::1") == 0
    assert signin.network("::ffff:192.0.2.1") == "192.0.2.1"


def test_what_is_remembered_is_bounded(clock, monkeypatch):
    monkeypatch.setattr(signin, "ADDRESSES", 50)
    monkeypatch.setattr(signin, "VISITORS", 20)
    sign_in = SignIn("open sesame", clock)
    for number in range(200):
        sign_in.right(b"guess", f"host{number}")
        sign_in.right(b"open sesame", f"known{number}")
    keys = [sign_in.enter() for _ in range(60)]
    assert len(sign_in._wrong) == 50 and len(sign_in._known) == 50
    assert [sign_in.knows(key) for key in keys] == [False] * 40 + [True] * 20


def test_a_browser_is_forgotten_when_it_is_silent_and_at_the_latest_after_half_a_day(clock):
    sign_in = SignIn("open sesame", clock)
    silent, busy = sign_in.enter(), sign_in.enter()
    for _ in range(11):
        clock.now += 3600
        assert sign_in.knows(busy)
    assert not sign_in.knows(silent)
    clock.now += 3600
    assert not sign_in.knows(busy)
    other = sign_in.enter()
    sign_in.leave(other)
    assert not sign_in.knows(other) and not sign_in.knows("")


@pytest.mark.parametrize("password", ["pässwort", "密码", "naïve ☃", "open sesame"])
def test_a_password_of_any_letters_is_understood(password):
    sign_in = SignIn(password)
    assert sign_in.right(password.encode(), "a")
    if password == "pässwort":
        assert sign_in.right(password.encode("latin-1"), "a")
    assert not sign_in.right(password.encode() + b" ", "a") and not sign_in.right(b"", "a")


def test_without_a_password_nothing_is_asked():
    assert not SignIn(None).needed and SignIn("x").needed
