"""Results that wait: sent in order, kept while the archive is away, dropped only where it refuses for good."""

import pytest

from archive.node.outbox import TRIES, Away, Outbox, Refused
from tests.support import until


class There:
    """An archive that can be away, or refuse some kinds."""

    def __init__(self):
        self.got, self.away, self.refuses = [], False, ()

    def __call__(self, files, accepted):
        if self.away:
            raise Away("no association")
        bad = [file for file in files if file.stem in self.refuses]
        for file in files:
            if file not in bad:
                self.got.append(file.read_bytes())
                accepted(file)
        if bad:
            raise Refused("status A900")


@pytest.fixture
def there() -> There:
    return There()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def box(tmp_path, there, said) -> Outbox:
    return Outbox(tmp_path / "out", 100, there, said.append, pauses=(0.01,))


def test_results_are_sent_in_the_order_of_their_studies(box, there):
    box.put(2, {"report": b"c"})
    box.put(1, {"pdf": b"a", "report": b"b"})
    assert box.deliver() and there.got == [b"a", b"b", b"c"]
    assert box.sent == 3 and list(box.folder.iterdir()) == []


def test_an_archive_that_is_away_is_told_once_and_the_results_wait(box, there, said):
    there.away = True
    box.put(1, {"report": b"a"})
    assert not box.deliver() and not box.deliver()
    assert said == ["the archive is away (no association); 1 results wait and are sent later"]
    there.away = False
    assert box.deliver() and there.got == [b"a"] and said[1:] == ["the archive is back"]


def test_what_was_accepted_is_not_sent_again(box, there):
    there.refuses = ("pdf",)
    box.put(1, {"pdf": b"a", "report": b"b"})
    assert not box.deliver() and not box.deliver()
    there.refuses = ()
    assert box.deliver() and there.got == [b"b", b"a"]


def test_what_is_refused_for_good_is_dropped_and_told_and_holds_nothing_up(box, there, said):
    there.refuses = ("pdf",)
    box.put(1, {"pdf": b"a"})
    box.put(2, {"report": b"b"})
    done = [box.deliver() for _ in range(TRIES)]
    assert done == [False] * (TRIES - 1) + [True] and there.got == [b"b"]
    assert said == ["the archive refused 1 results 10 times (status A900); they are dropped"] and box.lost == 1
    assert list(box.folder.iterdir()) == []


def test_a_box_is_full_at_its_bound(box):
    box.put(1, {"report": b"x" * 99})
    assert not box.full
    box.put(2, {"report": b"x"})
    assert box.full and len(box.waiting) == 2


def test_results_outlive_the_node_and_halves_of_them_do_not(box, there, said):
    box.put(1, {"report": b"a"})
    (box.folder / ".000000000002-dead").mkdir()
    (box.folder / ".000000000002-dead" / "report.dcm").write_bytes(b"half")
    again = Outbox(box.folder, 100, there, said.append)
    assert again.deliver() and there.got == [b"a"] and list(box.folder.iterdir()) == []


def test_a_disk_that_takes_no_results_is_no_secret(box, monkeypatch):
    def fails(path, body):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", fails)
    with pytest.raises(OSError, match="No space left"):
        box.put(1, {"report": b"a"})
    assert list(box.folder.iterdir()) == []


def test_the_thread_sends_what_is_put_and_tries_again(box, there):
    there.away = True
    box.start()
    box.put(1, {"report": b"a"})
    until(lambda: box.away, 30, "the archive to be missed")
    there.away = False
    until(lambda: there.got == [b"a"] and not box.waiting, 30, "the result to arrive")
    box.put(2, {"report": b"b"})
    until(lambda: there.got == [b"a", b"b"], 30, "the next to arrive")
    box.stop()
    assert not box._thread.is_alive()
