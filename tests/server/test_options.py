"""The server's command line: a proxy's options belong together, and wrong ones are told in words."""

import pytest

from server.options import parse, workers_for


def test_a_proxy_s_addresses_and_header():
    options = parse(
        ["--proxy-header", "X-Remote-User", "--proxy-from", "10.0.0.5", "--proxy-from", "192.0.2.0/28"]
    )
    assert options.proxy_header == "X-Remote-User"
    assert [str(network) for network in options.proxy_from] == ["10.0.0.5/32", "192.0.2.0/28"]
    assert parse([]).proxy_header is None and parse([]).proxy_from == [] and parse([]).audit is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--proxy-header", "X-Remote-User"], "say by --proxy-from ADDRESS where the proxy calls from"),
        (["--proxy-header", "two words", "--proxy-from", "10.0.0.5"], "'two words' is no name of a header"),
        (["--proxy-from", "somewhere"], "'somewhere': give an address such as 10.0.0.5"),
        (["--proxy-from", "0.0.0.0/0"], "that is everybody"),
        (["--keep", "0"], "--keep 0.0: give a number above 0"),
    ],
)
def test_wrong_options_are_told(arguments, words, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2 and words in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 2), (4, 2), (8, 4), (64, 4)])
def test_two_scans_are_worked_on_at_once_where_there_are_two_cores(cores, workers):
    assert workers_for(cores) == workers
