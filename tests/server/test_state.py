"""What the server keeps between requests: the queue, and what an earlier one left."""

import concurrent.futures
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from server.answers import Asked, results
from server.folder import Upload, Uploads
from server.state import Busy, Cancelled, Job, Pool, ServerState
from tests.asking import KEY, post
from tests.support import ROOT, Server, running, until


def test_a_full_queue_is_503_with_a_time_to_come_back(strict: Server, head: bytes):
    """One worker and no queue: of six that come at once some are judged and the others told to come again."""
    with concurrent.futures.ThreadPoolExecutor(6) as people:
        answers = list(people.map(lambda _: post(strict, ("a.nii.gz", head), headers=KEY), range(6)))
    statuses = {status for status, _, _ in answers}
    assert statuses == {200, 503}
    for status, headers, answer in answers:
        if status == 503:
            assert int(headers["retry-after"]) > 0
            assert answer["error"]["code"] == "busy"


def test_health_answers_while_scans_are_worked_on(server: Server, head: bytes):
    with concurrent.futures.ThreadPoolExecutor(4) as people:
        jobs = [people.submit(post, server, ("a.nii.gz", head)) for _ in range(4)]
        until(lambda: server.get("/healthz")["queue"] > 0, what="a queue")
        assert not all(job.done() for job in jobs)
        assert {job.result()[0] for job in jobs} == {200}


def test_what_a_crash_left_goes_at_the_next_start_and_nothing_else(tmp_path: Path, weights_folder: Path):
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    (uploads / f"scanwise-{'0' * 32}.nii.gz").write_bytes(b"x")
    mine = [uploads / "thesis.nii.gz", uploads / f"{'0' * 32}.nii.gz", uploads / "notes.txt"]
    for path in mine:
        path.write_bytes(b"mine")
    with running(tmp_path, "--weights", weights_folder, "--keep", "0.01") as started:
        assert sorted(started.files()) == sorted(path.name for path in mine)
        command = [
            sys.executable,
            ROOT / "app.py",
            "--port",
            "0",
            "--weights",
            weights_folder,
            "--uploads",
            uploads,
        ]
        taken = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert taken.returncode == 2
        assert f"another server (process {started.process.pid})" in taken.stderr
        assert "--uploads" in taken.stderr and "Traceback" not in taken.stderr
        assert sorted(started.files()) == sorted(path.name for path in mine)
        started.process.send_signal(signal.SIGTERM)
        assert started.process.wait(60) == 0
        for path in mine:
            assert path.read_bytes() == b"mine"
            path.unlink()


@pytest.fixture
def state(tmp_path, weights_folder, diagnosis):
    """The state of a server whose diagnoser hands out one diagnosis made by hand, and counts."""
    made = ServerState(weights_folder, Uploads(tmp_path / "uploads", 1000), Pool(1, 2), "cpu", keep=100)
    ((name, diagnoser),) = made.diagnosers.items()

    class Counting:
        study, weights, calls = diagnoser.study, diagnoser.weights, 0

        def called(self):
            """A test's own."""

        def __call__(self, *_, **__):
            self.calls += 1
            self.called()
            return diagnosis

    made.diagnosers = {name: Counting()}
    yield made
    made.close()


def test_three_diagnoses_stay_in_memory_and_an_older_one_is_made_anew(state):
    ((name, diagnoser),) = state.diagnosers.items()
    upload = state.uploads.new("a.nii.gz")
    page = state.enter()
    first, *newer = [results(page, Job(), upload, Asked(name))[0] for _ in range(4)]
    for result in newer:
        state.diagnosis(result)
    assert diagnoser.calls == 4
    state.diagnosis(first)
    assert diagnoser.calls == 5
    state.diagnosis(newer[0])  # which that one pushed out
    assert diagnoser.calls == 6


def test_a_queue_has_as_many_places_as_workers_and_room():
    pool, go = Pool(1, 2), threading.Event()
    jobs = [pool.submit(lambda job: go.wait(60)) for _ in range(3)]
    assert pool.full
    for begun in (False, True):  # what is worked on takes a place as what waits does
        if begun:
            until(lambda: pool.length == 2, what="the first to be begun")
        with pytest.raises(Busy, match=r"^busy: 2 are before you") as busy:
            pool.submit(lambda job: None)
        assert busy.value.number == 3
    assert [pool.ahead(job) for job in jobs] == [0, 0, 1]
    assert [pool.waits(job) for job in jobs] == [False, True, True]
    go.set()
    assert [job.future.result(60) for job in jobs] == [True] * 3
    until(lambda: not pool.full and pool.length == 0, what="the places to be free")
    pool.close()


def test_a_scan_holds_its_place_on_its_way_from_the_queue_to_the_worker(monkeypatch):
    pool, go, taken = Pool(1, 2), threading.Event(), []

    class Noting:
        """The pool's lock, which notes how many places are taken each time that it is let go."""

        lock = threading.Lock()

        def __enter__(self):
            self.lock.acquire()

        def __exit__(self, *_):
            taken.append(len(pool._waiting) + len(pool._running))
            self.lock.release()

    monkeypatch.setattr(pool, "_lock", Noting())
    job = pool.submit(lambda job: go.wait(60))
    until(lambda: not pool.waits(job) and not pool.idle(), what="it to be begun")
    assert set(taken) == {1}
    go.set()
    assert job.future.result(60)
    pool.close()


def test_what_is_older_than_promised_goes_and_the_rest_stays(state):
    ((name, _),) = state.diagnosers.items()
    old, new = state.uploads.new("old.nii"), state.uploads.new("new.nii")
    for upload, age in ((old, 101), (new, 50)):
        upload.path.write_bytes(b"x")
        assert state.uploads.arrived(upload)
        os.utime(upload.path, (time.time() - age,) * 2)
    page = state.enter()
    answered = [results(page, Job(), upload, Asked(name))[0] for upload in (old, new)]
    object.__setattr__(answered[0], "born", time.monotonic() - 101)
    object.__setattr__(answered[1], "born", time.monotonic() - 50)
    state.keep_house()
    assert [path.name for path in state.uploads.files()] == [new.path.name]
    assert list(state.results) == [answered[1].id]


def test_a_page_that_closes_takes_its_files_with_it_but_not_the_example(state, tmp_path):
    page, example = state.enter(), tmp_path / "example.nii"
    mine = state.uploads.new("mine.nii")
    for path in (mine.path, example):
        path.write_bytes(b"x")
    assert page.add(mine) and page.add(Upload(example, "example.nii", ours=False))
    page.close()
    assert example.exists() and not mine.path.exists()
    assert page.add(mine) is None and page.token not in state.pages


@pytest.mark.parametrize("end", ["close", "clear"])
@pytest.mark.parametrize("at", [1, 2])
def test_no_result_outlives_its_page(state, end, at):
    """The page goes while the first or the second file is judged, after the last step was told."""
    ((name, diagnoser),) = state.diagnosers.items()
    page, go = state.enter(), threading.Event()
    diagnoser.called = lambda: getattr(page, end)() if diagnoser.calls == at else None
    uploads = [state.uploads.new("a.nii"), state.uploads.new("b.nii")]
    job = page.submit(lambda job: go.wait(60) and [results(page, job, one, Asked(name)) for one in uploads])
    go.set()
    with pytest.raises(Cancelled):
        job.future.result(60)
    assert diagnoser.calls == at
    assert not page.results and not state.results and not state._diagnoses


def test_a_diagnosis_made_anew_is_not_kept_for_a_page_that_closed(state):
    ((name, _),) = state.diagnosers.items()
    page = state.enter()
    (result,) = results(page, Job(), state.uploads.new("a.nii"), Asked(name))
    assert list(state.results) == list(page.results) == list(state._diagnoses) == [result.id]
    page.close()
    state.diagnosis(result)
    assert not state.results and not state._diagnoses


def test_a_file_is_kept_under_a_name_of_the_server_s_own(state):
    one, other = state.uploads.new("../Some Body.NII.GZ"), state.uploads.new("../Some Body.NII.GZ")
    assert one.path.parent == state.uploads.folder and one.path != other.path
    assert one.path.name.endswith(".nii.gz") and "Body" not in one.path.name
    assert one.name == "Some Body.NII.GZ"


def test_weights_are_found_by_study_and_by_file(state):
    (name,) = state.diagnosers
    assert [state.for_study(asked) for asked in (None, "", "alzheimers", name)] == [name] * 4
    assert state.for_study("covid-ct") is None
