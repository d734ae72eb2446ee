"""The Open-i loader against a server that speaks its pages: endless, broken, cut, busy, and stopped halfway."""

import csv
import io
import json
import threading
import time
from collections import Counter
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image

import datasets
from data import openi
from data.cases import DataError, find
from data.leaks import leaks
from data.splits import assign
from studies import STUDIES


def png(seed: int) -> bytes:
    memory = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 40), np.uint8)).save(memory, "PNG")
    return memory.getvalue()


def record(number: int) -> dict:
    """Two pictures a patient; of six patients three are normal, one has a nodule, two something else."""
    patient = (number + 1) // 2
    mesh = {
        0: ["Cardiomegaly/mild"],
        1: ["normal"],
        2: ["normal"],
        3: ["Nodule/lung/small", "Scoliosis"],
        4: ["Calcified Granuloma/lung"],
        5: ["normal"],
    }[patient % 6]
    return {
        "uid": f"CXR{patient}",
        "MeSH": {"major": mesh, "minor": []},
        "Problems": ";".join(mesh),
        "imgLarge": f"/imgs/512/1/{patient}/CXR{patient}_IM-{number:04}-1001.png?keywords=x",
    }


class Server(ThreadingHTTPServer):
    """Pages and pictures; `trouble` maps a piece of a path to what happens at its first, second, … request."""

    daemon_threads = True

    def __init__(self, total: int = 24, most: int = 30):
        super().__init__(("127.0.0.1", 0), Handler)
        self.total, self.most, self.trouble = total, most, {}
        self.asked, self.at_once, self.now = Counter(), 0, 0
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        with server.lock:
            server.now += 1
            server.at_once = max(server.at_once, server.now)
            key = next((key for key in server.trouble if key in self.path), None)
            what = server.trouble[key].pop(0) if key and server.trouble[key] else None
            server.asked[self.path] += 1
        try:
            self.answer(what)
        except OSError:  # the visitor gave up
            pass
        finally:
            with server.lock:
                server.now -= 1

    def answer(self, what):
        parts = urlsplit(self.path)
        if isinstance(what, tuple):  # a status, perhaps with Retry-After
            self.send_response(what[0])
            if what[1] is not None:
                self.send_header("Retry-After", what[1])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if what == "gone":
            self.connection.close()
            return
        if parts.path == "/api/search":
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            first, last = int(query["m"]), int(query["n"])
            last = min(last, first + self.server.most - 1, self.server.total)
            page = {
                "total": self.server.total,
                "count": last - first + 1,
                "list": [record(number) for number in range(first, last + 1)],
            }
            if what == "empty":
                page["list"] = []
            body = json.dumps(page).encode()
            body = b"<html>maintenance</html>" if what == "html" else body
        else:
            body = png(int(parts.path.split("-")[-2]))
            body = b"<html>not a picture</html>" if what == "html" else body
        self.send_response(200)
        if what not in ("cut without saying", "endless"):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        while what == "endless":  # until the visitor leaves, which ends a write
            self.wfile.write(b"x")
        self.wfile.write(body[: len(body) // 2] if what in ("cut", "cut without saying") else body)

    def log_message(self, *_):
        """Quiet."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(openi, "WAIT", 0.01)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as started:
        thread = threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield started
        started.shutdown()
        thread.join()


def visitor(server: Server, **more) -> openi.Visitor:
    return openi.Visitor(server.address, **{"timeout": 5.0, "pause": 0.0} | more)


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "index.csv").read_text().splitlines()))


def wanted(total: int) -> dict[str, tuple[str, str]]:
    """file → (label, subject), worked out from the server's own rule."""
    found = {}
    for number in range(1, total + 1):
        patient = (number + 1) // 2
        label = {1: "normal", 2: "normal", 5: "normal", 3: "nodule"}.get(patient % 6)
        if label:
            found[f"pictures/CXR{patient}_IM-{number:04}-1001.png"] = (label, f"CXR{patient}")
    return found


def got(folder: Path) -> dict[str, tuple[str, str]]:
    return {row["file"]: (row["label"], row["subject"]) for row in rows(folder)}


def test_the_whole_collection_by_the_command_line(tmp_path, server, capsys):
    server.most = 7  # fewer than asked for: the pages are followed as they come
    argv = ["open-i", str(tmp_path), "--address", server.address]
    assert datasets.main(argv) == 0
    assert got(tmp_path) == wanted(24)
    for number in (1, 5):
        [file] = tmp_path.glob(f"pictures/*-{number:04}-*.png")
        assert file.read_bytes() == png(number)
    said = capsys.readouterr().out
    assert "24 records, 16 of them normal or with a nodule" in said
    assert "normal: 12 pictures of 6 patients" in said and "nodule: 4 pictures of 2 patients" in said
    before = server.asked.total()
    assert datasets.main(argv) == 0
    assert server.asked.total() == before  # all of it was there


def test_what_it_brought_can_be_split_without_a_patient_on_both_sides(tmp_path, server):
    assert openi.fetch(tmp_path, visitor=visitor(server)) == []
    cases = assign(find(tmp_path, STUDIES["chest-nodule"]), 0)
    assert {case.label for case in cases} == {"normal", "nodule"}
    assert leaks(cases).pairs == ()


def test_a_range_and_then_more_of_it(tmp_path, server):
    assert openi.fetch(tmp_path, 3, 6, visitor(server)) == []
    assert set(got(tmp_path)) == {file for file in wanted(6) if file not in wanted(2)}
    assert openi.fetch(tmp_path, 1, 12, visitor(server)) == []
    assert got(tmp_path) == wanted(12)


@pytest.mark.parametrize(
    "trouble", [(429, "0"), (503, None), (500, None), "gone", "cut", "cut without saying", "html"]
)
@pytest.mark.parametrize("where", ["/api/search", "IM-0001", "IM-0005"])
def test_a_passing_trouble_costs_another_attempt_and_nothing_else(tmp_path, server, where, trouble):
    server.trouble = {where: [trouble, trouble]}
    assert openi.fetch(tmp_path, 1, 6, visitor(server)) == []
    assert got(tmp_path) == wanted(6)
    assert max(server.asked.values()) == 3


def test_a_server_that_never_ends_an_answer_is_left(tmp_path, server):
    server.trouble = {"IM-0001": ["endless"]}
    assert openi.fetch(tmp_path, 1, 6, visitor(server, timeout=0.3)) == []
    assert got(tmp_path) == wanted(6) and max(server.asked.values()) == 2


@pytest.mark.parametrize("how", ["seconds", "date"])
def test_all_wait_as_long_as_a_busy_server_asks(tmp_path, server, how):
    asked = "1" if how == "seconds" else format_datetime(datetime.now(timezone.utc) + timedelta(seconds=2), True)
    server.trouble = {"/api/search": [(429, asked)]}
    began = time.monotonic()
    assert openi.fetch(tmp_path, 1, 2, visitor(server)) == []
    assert 0.9 < time.monotonic() - began < 5


def test_what_failed_is_named_and_tried_again_next_time(tmp_path, server, capsys):
    server.trouble = {"IM-0001": [(404, None)], "IM-0005": ["html"] * openi.ATTEMPTS}
    argv = ["open-i", str(tmp_path), "--range", "1-6", "--address", server.address]
    assert datasets.main(argv) == 1
    said = capsys.readouterr().out
    assert "2 could not be had" in said and "IM-0001-1001.png?keywords=x: status 404" in said
    assert "IM-0005" in said and "IM-0002" not in said
    missing = {"pictures/CXR1_IM-0001-1001.png", "pictures/CXR3_IM-0005-1001.png"}
    assert set(got(tmp_path)) == set(wanted(6)) - missing
    server.asked.clear()
    assert datasets.main(argv) == 0
    assert server.asked.total() == 2 and got(tmp_path) == wanted(6)


def test_a_page_that_fails_is_named_and_the_next_ones_come(tmp_path, server, monkeypatch):
    monkeypatch.setattr(openi, "PAGE", 6)
    server.trouble = {"m=7&": ["empty"] * openi.ATTEMPTS}
    failed = openi.fetch(tmp_path, visitor=visitor(server))
    assert failed == ["records 7–12: an empty page before the end"]
    assert set(got(tmp_path)) == set(wanted(24)) - (set(wanted(12)) - set(wanted(6)))


def test_it_is_polite(tmp_path, server):
    openi.fetch(tmp_path / "one", visitor=visitor(server), workers=3)
    assert server.at_once <= 3
    began, before = time.monotonic(), server.asked.total()
    openi.fetch(tmp_path / "two", visitor=visitor(server, pause=0.05), workers=8)
    assert time.monotonic() - began > 0.05 * (server.asked.total() - before - 1)


def test_stopped_halfway_it_keeps_what_it_has(tmp_path, server, monkeypatch):
    calls, picture = [], openi.picture

    def pressed(*arguments):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return picture(*arguments)

    monkeypatch.setattr(openi, "picture", pressed)
    assert openi.run(tmp_path, "1-", server.address, 1, 5.0) == 130
    assert len(rows(tmp_path)) == 4
    monkeypatch.setattr(openi, "picture", picture)
    assert openi.run(tmp_path, "1-", server.address, 1, 5.0) == 0
    assert got(tmp_path) == wanted(24)
    assert not list(tmp_path.rglob("*.part"))


def test_no_server_and_no_such_range_are_said(tmp_path, server, capsys):
    assert datasets.main(["open-i", str(tmp_path), "--range", "90-99", "--address", server.address]) == 1
    assert "the collection has 24 records" in capsys.readouterr().err
    assert datasets.main(["open-i", str(tmp_path), "--range", "9-1"]) == 1
    assert "--range 9-1: give two numbers" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"no page of its search could be had \(status 404\)"):
        server.trouble = {"/api/search": [(404, None)]}
        openi.fetch(tmp_path, visitor=visitor(server))


@pytest.mark.parametrize(
    ("major", "minor", "label"),
    [
        (["normal"], [], "normal"),
        (["Nodule/lung/upper lobe/left"], [], "nodule"),
        (["Opacity/lung", "Multiple Pulmonary Nodules"], [], "nodule"),
        (["Density"], ["Nodule"], "nodule"),
        (["Calcified Granuloma/lung/nodular"], [], None),
        (["No Indexing"], [], None),
        ([], [], None),
        (["normal", "Scoliosis"], [], None),
        (["Nodularity"], [], None),
    ],
)
def test_labels_by_the_items_of_mesh(major, minor, label):
    assert openi.label_of({"major": major, "minor": minor}) == label


@pytest.mark.parametrize("path", ["/imgs/../../etc/passwd", "/imgs/.png", "/imgs/a.exe", "/imgs/a%2Fb.png", ""])
def test_a_picture_cannot_name_its_way_out(path):
    with pytest.raises(openi.FetchError, match="no picture's name"):
        openi.name_of(path)


def test_no_answer_sends_it_elsewhere(tmp_path, server):
    (tmp_path / "secret.png").write_bytes(png(1))
    path = f"file://{tmp_path}/secret.png"
    with pytest.raises(openi.FetchError):
        openi.picture(tmp_path, path, visitor(server))
    assert list(server.asked) == [f"{tmp_path}/secret.png"]  # asked of the server, not of this disk
