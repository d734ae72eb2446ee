"""Who asks: the proxy alone names people, from its own address, once, and plainly."""

import pytest

from server.access.callers import Caller, NotFromProxy, Proxy, header_name, network_of

PROXY = Proxy("X-Remote-User", [network_of("10.0.0.5"), network_of("192.0.2.0/28"), network_of("fd00::/64")])


@pytest.mark.parametrize("address", ["10.0.0.5", "192.0.2.15", "::ffff:192.0.2.3", "fd00::7"])
def test_the_proxy_names_the_person(address):
    assert PROXY.caller(address, ["jdoe"]) == Caller("proxy", "jdoe")


def test_a_name_of_any_letters_is_understood():
    assert PROXY.caller("10.0.0.5", ["müller".encode().decode("latin-1")]) == Caller("proxy", "müller")
    assert PROXY.caller("10.0.0.5", ["m\xfcller"]) == Caller("proxy", "müller")


@pytest.mark.parametrize("address", ["10.0.0.6", "192.0.2.16", "127.0.0.1", "::1", "fd00:1::1", "", "unix"])
def test_from_elsewhere_the_header_is_refused_and_its_absence_is_nobody(address):
    with pytest.raises(NotFromProxy, match="believed from the proxy alone") as caught:
        PROXY.caller(address, ["jdoe"])
    assert caught.value.code == "forged-person"
    assert PROXY.caller(address, []) is None


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ([], "no-person"),
        ([""], "no-person"),
        (["  "], "no-person"),
        (["jdoe", "admin"], "two-people"),
        (["jdoe", "jdoe"], "two-people"),
        (["x" * 201], "odd-person"),
        (["jdoe\x7f"], "odd-person"),
        (["jdoe\t2"], "odd-person"),
    ],
)
def test_what_the_proxy_sends_wrong_is_refused_in_words(values, code):
    with pytest.raises(NotFromProxy, match="the proxy") as caught:
        PROXY.caller("10.0.0.5", values)
    assert caught.value.code == code


def test_without_a_proxy_nothing_is_believed_and_nothing_refused():
    assert Proxy().caller("10.0.0.5", ["jdoe"]) is None and not Proxy().is_at("10.0.0.5")


@pytest.mark.parametrize("text", ["10.0.0.300", "proxy.example", "", "0.0.0.0/0", "::/0"])
def test_an_address_that_is_none_or_everybodys_is_refused(text):
    with pytest.raises(ValueError, match="address"):
        network_of(text)


@pytest.mark.parametrize("text", ["", "two words", "X:Y", "ü"])
def test_a_name_that_no_header_has_is_refused(text):
    assert header_name("X-Remote-User") == "X-Remote-User"
    with pytest.raises(ValueError, match="no name of a header"):
        header_name(text)
