"""Studies on their way: complete after a quiet time, dropped where the sender broke off, known a second time."""

import shutil

import pytest

from archive.node import incoming
from archive.node.incoming import Incoming, NoRoom

QUIET = 10.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def held(tmp_path, clock) -> Incoming:
    return Incoming(tmp_path / "incoming", 1000, QUIET, clock)


def bring(
    held: Incoming, *instances: str, sender: str = "a", study: str = "1.2.3", well: bool | None = True
) -> None:
    for instance in instances:
        held.take(study, instance, instance.encode() * 10, sender)
    if well is not None:
        held.ended(sender, well)


def due(held: Incoming, clock: Clock, later: float):
    clock.now += later
    return [(len(study.sizes), whole) for study, whole in held.due()]


def test_a_study_is_complete_when_nothing_more_of_it_comes(held, clock):
    bring(held, "1", "2")
    assert due(held, clock, 9) == []
    bring(held, "3", sender="b")
    assert due(held, clock, 9) == [] and due(held, clock, 1) == [(3, True)]
    assert due(held, clock, 100) == []


def test_an_association_that_is_open_is_waited_for_but_not_for_ever(held, clock):
    bring(held, "1", well=None)
    assert due(held, clock, 29) == [] and due(held, clock, 1) == [(1, True)]


def test_what_its_sender_broke_off_waits_for_the_rest_and_is_then_no_whole(held, clock):
    bring(held, "1", well=False)
    assert due(held, clock, 99) == [] and due(held, clock, 1) == [(1, False)]
    bring(held, "1", well=False)
    bring(held, "1", "2", sender="b")  # the sender comes again
    assert due(held, clock, 10) == [(2, True)]


def test_an_instance_that_comes_twice_is_kept_once(held, clock):
    bring(held, "1", "1", "2")
    assert held.taken == 20
    ((study, _),) = [found for clock.now in [10] for found in held.due()]
    assert sorted(path.read_bytes() for path in study.files) == [b"1" * 10, b"2" * 10]


def test_studies_do_not_mix_and_their_files_tell_nothing(held, clock, tmp_path):
    bring(held, "1.2.840.99", study="1.2.840.7")
    bring(held, "2", study="4")
    names = " ".join(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert "840" not in names and len(held.studies) == 2
    clock.now = 10
    for study, _ in held.due():
        held.done(study, answered=True)
    assert list(held.folder.iterdir()) == []


def test_copies_of_what_was_answered_are_known_and_something_new_is_not(held, clock):
    bring(held, "1", "2")
    ((first, _),) = [found for clock.now in [10] for found in held.due()]
    assert not held.known(first)
    held.done(first, answered=True)
    bring(held, "2")
    ((again, _),) = [found for clock.now in [20] for found in held.due()]
    assert held.known(again)
    held.done(again, answered=False)
    bring(held, "2", "3")
    ((more, _),) = [found for clock.now in [30] for found in held.due()]
    assert not held.known(more)


def test_only_the_last_studies_are_remembered(held, clock, monkeypatch):
    monkeypatch.setattr(incoming, "REMEMBERED", 2)
    for number in range(4):
        bring(held, "1", study=str(number))
        clock.now += 10
        held.done(held.due()[0][0], answered=True)
    assert list(held.answered) == [incoming.digest("2"), incoming.digest("3")]


def test_more_than_the_limit_is_not_taken(held):
    held.take("1", "1", b"x" * 990, "a")
    with pytest.raises(NoRoom, match="wait to be judged"):
        held.take("1", "2", b"x" * 20, "a")
    assert held.taken == 990


def test_a_full_disk_is_told_and_leaves_nothing_half_written(held, monkeypatch):
    free = shutil.disk_usage(held.folder)._replace(free=incoming.SPARE + 5)
    monkeypatch.setattr(incoming.shutil, "disk_usage", lambda path: free)
    with pytest.raises(NoRoom, match="disk is full"):
        held.take("1", "1", b"123456", "a")
    monkeypatch.setattr(incoming.shutil, "disk_usage", lambda path: free._replace(free=1 << 40))
    held.take("1", "1", b"123456", "a")

    def fails(path, body):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(incoming.Path, "write_bytes", fails)
    with pytest.raises(NoRoom, match="No space left"):
        held.take("1", "2", b"123456", "a")
    assert [path.suffix for path in held.folder.rglob("*") if path.is_file()] == [".dcm"]


def test_what_was_received_before_a_stop_is_judged_after_it(held, clock, tmp_path):
    bring(held, "1", "2")
    bring(held, "9", study="4", well=None)  # its association was open when the node was killed
    part = next(held.folder.iterdir()) / "half.dcm.part"
    part.write_bytes(b"x")
    again = Incoming(held.folder, 1000, QUIET, clock)
    assert not part.exists() and again.taken == held.taken == 30
    clock.now = 10
    assert [(len(study.sizes), whole) for study, whole in again.due()] == [(2, True)]
    clock.now = 100
    assert [(len(study.sizes), whole) for study, whole in again.due()] == [(1, False)]


def test_a_study_that_could_not_be_answered_is_due_again(held, clock):
    bring(held, "1")
    ((study, _),) = [found for clock.now in [10] for found in held.due()]
    held.again(study)
    assert due(held, clock, 9) == [] and due(held, clock, 1) == [(1, True)]
    bring(held, "1")
    held.again(study)  # while the sender has begun anew
    assert due(held, clock, 10) == [(1, True)] and not study.folder.exists()
