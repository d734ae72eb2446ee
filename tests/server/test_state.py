"""What the server keeps between requests: the queue, and what an earlier one left."""

import concurrent.futures
from pathlib import Path

from tests.asking import KEY, post
from tests.support import Server, running, until


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


def test_what_a_crash_left_goes_at_the_next_start(tmp_path: Path, weights_folder: Path):
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / "left.nii.gz").write_bytes(b"x")
    with running(tmp_path, "--weights", weights_folder) as started:
        assert started.files() == []
