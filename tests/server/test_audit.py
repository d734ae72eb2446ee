"""The audit log: what is written, that it outlives whatever happens to its writer, and that tampering is found."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from server import audit
from server.access.callers import OPEN, Caller
from server.audit import AuditError, AuditLog
from tests.support import ROOT

DOCTOR = Caller("proxy", "dr.müller")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "audit.jsonl"


def filled(file: Path, events: int = 6) -> list[str]:
    """A log of some events, closed: its lines."""
    log = AuditLog(file)
    for number in range(events):
        log.write(DOCTOR, {"what": "scan judged", "outcome": "fit", "scan": f"{number:064x}"})
    log.close()
    return file.read_text(encoding="utf-8").splitlines(keepends=True)


def checked(file: Path, capsys, *more: str) -> tuple[int, str]:
    code = audit.main([str(file), *more])
    return code, capsys.readouterr().out


def test_each_line_follows_from_the_one_before_by_plain_sha256(file):
    before = "0" * 64
    lines = filled(file)
    for number, text in enumerate(lines, 1):
        told = json.loads(text)
        assert told["n"] == number and told["before"] == before
        content = text.rstrip("\n").removesuffix(f',"hash":"{told["hash"]}"}}') + "}"
        assert hashlib.sha256(content.encode()).hexdigest() == told["hash"]
        before = told["hash"]
    said = [json.loads(text) for text in lines]
    assert [one["what"] for one in said] == ["server started", *["scan judged"] * 6, "server stopped"]
    assert (said[1]["by"], said[1]["who"], said[1]["outcome"]) == ("proxy", "dr.müller", "fit")
    assert said[1]["when"].endswith("Z") and said[1]["when"][4] == "-"
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_command_finds_a_whole_log_whole_and_prints_the_last_hash(file):
    lines = filled(file)
    told = subprocess.run(
        [sys.executable, "-m", "server.audit", str(file)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    assert "8 lines" in told.stdout and json.loads(lines[-1])["hash"] in told.stdout
    assert "cut off at its end" in told.stdout


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda lines: [*lines[:3], lines[3].replace("fit", "unfit"), *lines[4:]], "line 4: its content is not"),
        (lambda lines: [*lines[:3], lines[3].replace("dr.müller", "dr.meyer"), *lines[4:]], "line 4: its content"),
        (lambda lines: [*lines[:3], *lines[4:]], "line 4: 1 line before it is missing"),
        (lambda lines: [*lines[:2], *lines[5:]], "line 3: 3 lines before it are missing"),
        (lambda lines: lines[2:], "line 1: 2 lines before it are missing"),
        (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], "line 3: 1 line before it is missing"),
        (lambda lines: [*lines[:4], lines[2], *lines[4:]], "line 5: number 3 after number 4"),
        (lambda lines: [*lines[:4], "scribble\n", *lines[4:]], "line 5: no line of an audit log"),
        (lambda lines: [*lines[:4], "\n", *lines[4:]], "line 5: no line of an audit log"),
    ],
)
def test_tampering_is_found_where_it_was_done(file, capsys, harm, said):
    file.write_text("".join(harm(filled(file))), encoding="utf-8")
    code, out = checked(file, capsys)
    assert code == 1 and f"{file}, {said}" == out.splitlines()[0][: len(f"{file}, {said}")]


def test_a_line_made_anew_with_its_hash_is_found_by_the_next(file, capsys):
    lines = filled(file)
    told = json.loads(lines[3])
    del told["hash"]
    lines[3] = audit.sealed(told | {"who": "somebody"})[0].decode()
    file.write_text("".join(lines), encoding="utf-8")
    code, out = checked(file, capsys)
    assert code == 1 and "line 5: does not follow from the line before it" in out


def test_a_tail_that_was_cut_off_is_found_by_the_hash_written_down_alone(file, capsys):
    lines = filled(file)
    anchor = json.loads(lines[-1])["hash"]
    assert checked(file, capsys, "--anchor", anchor)[0] == 0
    file.write_text("".join(lines[:-2]), encoding="utf-8")
    assert checked(file, capsys)[0] == 0
    code, out = checked(file, capsys, "--anchor", anchor)
    assert code == 1 and f"no line bears the hash {anchor}" in out


def test_the_chain_goes_on_after_a_restart(file, capsys):
    first = filled(file)
    again = filled(file)
    assert again[: len(first)] == first and len(again) == 2 * len(first)
    assert json.loads(again[len(first)])["before"] == json.loads(first[-1])["hash"]
    assert checked(file, capsys)[0] == 0


@pytest.mark.parametrize("left", [1, 30, -3, -1])
def test_a_last_line_that_was_torn_is_cut_off_and_told(file, capsys, left):
    """-1: all of it but the end of line, which is a line all the same."""
    lines = filled(file)
    piece = lines[-1].encode()[:left]
    file.write_bytes("".join(lines[:-1]).encode() + piece)
    code, out = checked(file, capsys)
    assert code == 0 and ("never finished" in out) == (left != -1)
    AuditLog(file).close()
    told = [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines()]
    assert len(told) == len(lines) - 1 + 2 + (left == -1) and checked(file, capsys)[0] == 0
    assert [one.get("torn") for one in told if "torn" in one] == ([] if left == -1 else [len(piece)])


def test_zeros_that_a_lost_power_left_are_cut_off(file, capsys):
    whole = "".join(filled(file)).encode()
    file.write_bytes(whole + b"\0" * 100)
    AuditLog(file).close()
    assert file.read_bytes().startswith(whole) and b"\0" not in file.read_bytes()
    assert checked(file, capsys)[0] == 0


@pytest.mark.parametrize("content", [b"notes of mine", b"notes\nof mine\n", b'{"a": 1}\n', b"\n"])
def test_another_file_is_refused_and_left_as_it_is(file, content):
    file.write_bytes(content)
    with pytest.raises(AuditError, match="name another file with --audit"):
        AuditLog(file)
    assert file.read_bytes() == content


def test_a_log_whose_last_line_was_changed_is_not_gone_on_with(file):
    lines = filled(file)
    file.write_text("".join([*lines[:-1], lines[-1].replace("stopped", "removed")]), encoding="utf-8")
    with pytest.raises(AuditError, match="that line was changed"):
        AuditLog(file)


def test_one_writer(file, tmp_path):
    log = AuditLog(file)
    with pytest.raises(AuditError, match="another server writes"):
        AuditLog(file)
    log.close()
    AuditLog(file).close()
    with pytest.raises(AuditError, match="cannot be written"):
        AuditLog(tmp_path)
    with pytest.raises(AuditError, match="cannot be written"):
        AuditLog(tmp_path / "nowhere" / "audit.jsonl")


def test_what_cannot_be_written_is_told_and_the_chain_goes_on_when_it_can_again(file, capsys, monkeypatch):
    log = AuditLog(file)
    with monkeypatch.context() as patched:
        patched.setattr(audit.os, "fsync", lambda number: (_ for _ in ()).throw(OSError(errno.EIO, "broken disk")))
        with pytest.raises(AuditError, match="broken disk"):
            log.write(OPEN, {"what": "scan judged"})
    log.write(OPEN, {"what": "scan judged"})
    log.close()
    assert checked(file, capsys)[0] == 0 and "4 lines" in checked(file, capsys)[1]


def test_a_full_disk_leaves_no_piece_of_a_line(file, capsys, monkeypatch):
    """A real limit on the file's size takes the place of the full disk."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from server.audit import AuditLog, AuditError\n"
        "from server.access.callers import OPEN\n"
        "log = AuditLog(Path(sys.argv[1])); signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "limit = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "size = log.path.stat().st_size\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limit[1]))\n"
        "for _ in range(2):\n"
        "    try: log.write(OPEN, {'what': 'scan judged'})\n"
        "    except AuditError as error: print(error)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, limit)\n"
        "log.write(OPEN, {'what': 'scan judged'}); log.close()\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(file)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert told.stdout.count("cannot be written") == 2
    lines = [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines()]
    assert [one["what"] for one in lines] == ["server started", "scan judged", "server stopped"]
    assert lines[1]["torn"] >= 100 and checked(file, capsys)[0] == 0


def test_a_log_that_was_moved_away_takes_nothing_more(file):
    log = AuditLog(file)
    file.rename(file.with_suffix(".old"))
    with pytest.raises(AuditError, match="No such file"):
        log.write(OPEN, {"what": "scan judged"})
    file.write_bytes(b"")
    with pytest.raises(AuditError, match="another file lies in its place"):
        log.write(OPEN, {"what": "scan judged"})
    log.close()


def test_many_threads_make_one_chain(file, capsys):
    log = AuditLog(file)
    threads = [
        threading.Thread(target=lambda: [log.write(OPEN, {"what": "fetched"}) for _ in range(10)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    code, out = checked(file, capsys)
    assert code == 0 and "82 lines" in out


def test_refusals_in_a_burst_are_counted_and_told_later(file):
    clock = Clock()
    log = AuditLog(file, clock)
    for _ in range(1000):
        log.refused(OPEN, "password")
    clock.now += 61
    log.settle()
    log.refused(OPEN, "password")
    log.close()
    told = [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines()]
    refused = [one for one in told if one["what"] == "refused"]
    assert len(refused) == 60 + 1 + 1 and refused[60]["more"] == 940 and refused[61]["code"] == "password"


def test_many_events_are_one_write(file, monkeypatch):
    log, synced = AuditLog(file), []
    monkeypatch.setattr(audit.os, "fsync", synced.append)
    log.write(DOCTOR, *({"what": "fetched", "scan": f"{number:064x}"} for number in range(200)))
    assert len(synced) == 1 and log.count == 201
    log.close()


def test_a_file_that_cannot_be_read_is_told(tmp_path, capsys):
    assert audit.main([str(tmp_path / "nowhere")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_the_file_may_be_a_link_but_no_device():
    with pytest.raises(AuditError, match="no plain file"):
        AuditLog(Path(os.devnull))
