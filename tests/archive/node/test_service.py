"""The node's own work: one line a study, everything received deleted, whatever goes wrong."""

from types import SimpleNamespace

import pytest

from archive.node import service
from archive.node.incoming import Incoming
from archive.node.service import Folder, Node
from scans.scan import ScanError

ANSWER = SimpleNamespace(label="AD", probabilities={"AD": 0.62}, verdict="fit", seconds={"read": 0.1})


class Diagnoser:
    study = SimpleNamespace(key="alzheimers")

    def __init__(self):
        self.saw, self.fails = [], None

    def __call__(self, path, name):
        self.saw.append(sorted(file.read_bytes() for file in path.glob("*.dcm")))
        if self.fails is not None:
            raise self.fails
        return ANSWER

    def explain(self, diagnosis):
        return "map"


class Box:
    full, waiting = False, ()

    def __init__(self):
        self.got, self.fails = [], None

    def put(self, number, bodies):
        if self.fails is not None:
            raise self.fails
        self.got.append((number, bodies))


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.setattr(service, "results", lambda diagnosis, heat_map, language: {"report": heat_map})
    monkeypatch.setattr(service, "to_bytes", lambda made: made.encode())
    said: list[str] = []
    incoming = Incoming(tmp_path / "incoming", 1 << 20, 10.0, lambda: incoming_clock[0])
    incoming_clock = [0.0]
    made = Node(Diagnoser(), incoming, [Box(), Box()], said.append)
    made.said, made.clock = said, incoming_clock
    return made


def study(node: Node, *bodies: bytes, well: bool = True) -> None:
    for number, body in enumerate(bodies):
        node.incoming.take("1.2", str(number), body, "a")
    node.incoming.ended("a", well)
    node.clock[0] += 1000
    node.step()


def count(node: Node, outcome: str) -> float:
    return node.counters.registry.get_sample_value(
        "scanwise_scans_total", {"study": "alzheimers", "outcome": outcome}
    )


def left(node: Node) -> list[str]:
    return [path.name for path in node.incoming.folder.rglob("*") if path.is_file()]


def test_a_study_is_judged_as_one_folder_and_its_results_go_everywhere(node):
    study(node, b"one", b"two")
    assert node.diagnoser.saw == [[b"one", b"two"]]
    assert [box.got for box in node.outboxes] == [[(1, {"report": b"map"})]] * 2
    assert node.said[0].startswith("study 1: 2 images, AD 62 %, fit; 1 results in ")
    assert left(node) == [] and count(node, "fit") == 1


def test_copies_are_answered_once(node):
    study(node, b"one")
    study(node, b"one")
    assert node.said[1] == "study 2: 1 images, answered before"
    assert len(node.outboxes[0].got) == 1 and left(node) == []


def test_a_study_in_pieces_is_not_judged(node):
    study(node, b"one", well=False)
    assert node.said == ["study 1: 1 images, dropped: the sender broke off and did not come again"]
    assert node.diagnoser.saw == [] and left(node) == [] and count(node, "broken off") == 1


def test_a_refusal_is_told_by_its_code_alone(node):
    node.diagnoser.fails = ScanError("too-few-slices", "Somebody^Else: 3 images")
    study(node, b"one")
    assert node.said == ["study 1: 1 images, refused (too-few-slices)"] and left(node) == []


def test_what_was_not_foreseen_is_told_by_its_place_and_the_next_study_judged(node):
    node.diagnoser.fails = RuntimeError("Somebody^Else")
    study(node, b"one")
    assert node.said[0].startswith("study 1: 1 images, not answered: RuntimeError in test_service.py, line ")
    node.diagnoser.fails = None
    study(node, b"one")
    assert "AD 62 %" in node.said[1] and "Somebody" not in str(node.said) and left(node) == []


def test_a_disk_that_does_not_take_the_results_keeps_the_study(node):
    node.outboxes[0].fails = OSError(28, "No space left on device")
    study(node, b"one")
    assert node.said == ["study 1: 1 images, waits: the disk does not take its results (No space left on device)"]
    node.outboxes[0].fails = None
    node.clock[0] += 10
    node.step()
    assert "AD 62 %" in node.said[1] and left(node) == []


def test_a_full_outbox_is_a_reason_to_take_nothing_in(node):
    assert node.why_full() is None
    node.outboxes[1].full = True
    assert node.why_full() == "results wait for the archive"


def test_it_runs_until_it_is_stopped(node):
    looks = []
    node.incoming.take("1.2", "1", b"one", "a")
    node.incoming.ended("a", True)
    node.clock[0] += 1000
    node.run(lambda: (looks.append(1), node.stopping.set() if node.said else None))
    assert looks and "AD 62 %" in node.said[0]


def test_a_folder_is_one_nodes_own(tmp_path):
    first = Folder(tmp_path / "held")
    with pytest.raises(ValueError, match="another node uses it"):
        Folder(tmp_path / "held")
    first.close()
    Folder(tmp_path / "held").close()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="choose another with --folder"):
        Folder(tmp_path / "file")
