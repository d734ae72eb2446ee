"""Reader processes: what comes back is what was in the file, and whatever ends one is refused in words."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
from torch.utils.data import DataLoader, Dataset

from scans import memory, processes
from scans import read as plain
from scans.scan import ScanError
from tests import dicom_study, heads
from tests.hostile.seeds import SEEDS
from tests.support import ROOT, until

# the child's side, with a reader for *.nii that does what it is told to
ODD = """
import os, sys, time
sys.path.insert(0, {root!r})
import numpy as np
from scans import nifti, reader
from scans.dicom import folder
from scans.scan import ScanError
def odd(data, name, series, limit):
    word = bytes(data[:8])
    if word == b"segfault": os.kill(os.getpid(), 11)
    if word == b"hanghang": time.sleep(1e6)
    if word == b"swelling": return [np.ones(1 << 24) for _ in range(1 << 20)]
    if word == b"exitexit": os._exit(3)
    if word == b"surprise": raise AttributeError("Secret^Name")
    if word == b"hoarding": kept.append(np.ones(20 << 20)); raise ScanError("constant", "160 MB kept")
looked_through = folder.looked_through
def odd_folder(folder, *rest):
    for name in folder.names:
        if "crash" in name: os.kill(os.getpid(), 11)
    return looked_through(folder, *rest)
kept = []
nifti.read_nifti, folder.looked_through = odd, odd_folder
reader.main({end})
"""


@pytest.fixture
def readers():
    started = processes.Readers(2)
    yield started
    started.close()


@pytest.fixture(scope="module")
def living():
    """Readers that no test kills."""
    started = processes.Readers(2)
    yield started
    started.close()


@pytest.fixture
def odd_readers(readers, monkeypatch):
    start = subprocess.Popen

    def other(command, **options):
        code = ODD.format(root=str(ROOT), end=options["pass_fds"][0])
        return start([sys.executable, "-c", code], **options)

    monkeypatch.setattr(processes.subprocess, "Popen", other)
    return readers


@pytest.mark.parametrize("kind", SEEDS)
def test_the_same_comes_back_as_without_a_process(living, kind, tmp_path):
    name, build = SEEDS[kind]
    data = build()
    (tmp_path / name).write_bytes(data)
    there = plain.read(data, name)
    for scan in (living.read(data, name), living.read(tmp_path / name)):
        assert scan.voxels.dtype == there.voxels.dtype and scan.voxels.strides == there.voxels.strides
        np.testing.assert_array_equal(scan.voxels, there.voxels)
        np.testing.assert_array_equal(scan.affine, there.affine)
        assert (scan.kind, scan.facts) == (there.kind, there.facts)
        scan.voxels[0] = 1  # ours to write to


def test_refusals_are_the_same_and_a_reader_lives_on(readers, tmp_path):
    first = readers.read(SEEDS["NIfTI i2"][1](), "a.nii")
    pids = [reader.process.pid for reader in readers.idle]
    for data, name in [
        (b"nothing", "a.nii"),
        (b"GIF89a", "a.png"),
        (b"PK\3\4", "a.zip"),
        (b"", "a.nii"),
        (b"x", "a.txt"),
    ]:
        with pytest.raises(ScanError) as there:
            plain.read(data, name)
        with pytest.raises(ScanError) as here:
            readers.read(data, name)
        assert (here.value.code, str(here.value)) == (there.value.code, str(there.value))
    with pytest.raises(ScanError, match="no such file"):
        readers.read(tmp_path / "gone.nii")
    assert [reader.process.pid for reader in readers.idle] == pids
    assert first.voxels.max() > 100  # held after the reader has worked on


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"segfault", "reader-died", "SIGSEGV"),
        (b"exitexit", "reader-died", "ended with 3"),
        (b"hanghang", "too-slow", "longer than 0.3 s"),
        (b"swelling", "too-much-memory", "more memory"),
        (b"surprise", "unreadable", "AttributeError"),
    ],
)
def test_a_reader_may_crash_hang_and_swell(odd_readers, content, code, words):
    with pytest.raises(ScanError, match=words) as refused:
        odd_readers.read(content, "a.nii", seconds=0.3 if content == b"hanghang" else 60)
    assert refused.value.code == code and "Secret" not in str(refused.value)
    with pytest.raises(ScanError, match="more memory"):  # and the next one finds a reader that works
        odd_readers.read(b"swelling", "a.nii")


def test_a_file_does_not_pay_for_what_others_left_and_a_worn_reader_is_replaced(odd_readers):
    """Each leaves 160 MB behind: the second file still has all of its slack, the third another reader."""
    pids = []
    for idle in (1, 0, 1):
        with pytest.raises(ScanError, match="160 MB kept"):
            odd_readers.read(b"hoarding", "a.nii")
        assert len(odd_readers.idle) == odd_readers.count == idle
        pids += [reader.process.pid for reader in odd_readers.idle]
    assert len(set(pids)) == 2


def test_a_swelling_reader_stays_within_its_bound(odd_readers):
    """It may have what it took to start, the slack, and no more, whatever it asks for."""
    odd_readers.warm()
    reader = odd_readers.idle[0]
    peak, done = [0], threading.Event()

    def watch():
        process = psutil.Process(reader.process.pid)
        while not done.is_set():
            try:
                peak[0] = max(peak[0], process.memory_info().rss)
            except psutil.NoSuchProcess:
                return

    watching = threading.Thread(target=watch)
    watching.start()
    with pytest.raises(ScanError, match="more memory"):
        odd_readers.read(b"swelling", "a.nii")
    done.set()
    watching.join()
    assert 100 << 20 < peak[0] < memory.SLACK + (300 << 20)


def test_a_file_that_breaks_its_reader_down_is_a_unit_beside_the_others(odd_readers, tmp_path):
    dicom_study.written(dicom_study.instances(8.0)[:2], tmp_path / "a")
    (tmp_path / "crash.dcm").write_bytes(b"x" * 300)
    (tmp_path / "note").write_bytes(b"x" * 300)
    found = [unit.path.relative_to(tmp_path).as_posix() for unit in odd_readers.survey(tmp_path)]
    assert found == ["a", "crash.dcm"]


def test_a_survey_without_any_reader_is_refused_at_once(readers, tmp_path, monkeypatch):
    start = subprocess.Popen
    started = []

    def other(command, **options):
        started.append(command)
        return start([sys.executable, "-c", "raise SystemExit(3)"], **options)

    monkeypatch.setattr(processes.subprocess, "Popen", other)
    dicom_study.written(dicom_study.instances(8.0)[:6], tmp_path)
    with pytest.raises(ScanError, match="ended with"):
        readers.survey(tmp_path)
    assert len(started) == 1


def test_who_no_longer_waits_ends_the_reading(odd_readers):
    asked = []

    def left():
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(ScanError, match="nobody waits") as refused:
        odd_readers.read(b"hanghang", "a.nii", cancelled=left)
    assert refused.value.code == "cancelled" and odd_readers.count == 0

    def raises():
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        odd_readers.read(b"hanghang", "a.nii", cancelled=raises)
    assert odd_readers.count == 0


def test_one_file_that_hangs_keeps_nobody_else_waiting(readers):
    """A zip of very many files takes until it is given up; others are read meanwhile."""
    readers.read(SEEDS["NIfTI i2"][1](), "a.nii")
    reader = readers._take(lambda: False, "a.nii")  # busy, for whoever else asks
    for _ in range(20):
        assert readers.read(SEEDS["zip"][1](), "a.zip").kind == "volume"
    readers._give(reader, well=True)
    assert readers.count == 2


def test_as_many_readers_as_allowed_and_no_more(readers):
    data, found = SEEDS["DICOM frames"][1](), []
    threads = [threading.Thread(target=lambda: found.append(readers.read(data, "a.dcm"))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12 and 1 <= readers.count <= 2 and len(readers.idle) == readers.count


def test_an_idle_reader_that_was_killed_is_replaced(readers):
    readers.read(SEEDS["NIfTI i2"][1](), "a.nii")
    os.kill(readers.idle[0].process.pid, signal.SIGKILL)
    readers.idle[0].process.wait()
    assert readers.read(SEEDS["NIfTI i2"][1](), "a.nii").kind == "volume"


def test_readers_end_with_whoever_started_them():
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from scans import processes; import os, signal;"
        "processes.warm(); print(processes.POOL.idle[0].process.pid, flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout
    until(
        lambda: not psutil.pid_exists(int(said)) or psutil.Process(int(said)).status() == "zombie", 30, "its end"
    )


def test_no_torch_and_no_server_in_a_reader():
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import scans.reader, scans.dicom.files;"
        "print(sorted({name.split('.')[0] for name in sys.modules}))"
    )
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'nibabel'" in modules and "'pydicom'" in modules
    for name in ("torch", "tornado", "pywebio", "model", "studies"):
        assert f"'{name}'" not in modules


def test_no_parser_in_the_process_that_asks():
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from scans import processes;"
        f"print(processes.read({SEEDS['zip'][1]()!r}, 'a.zip').kind);"
        "print(sorted({name.split('.')[0] for name in sys.modules}))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "volume" in said and "'pydicom'" not in said and "'nibabel'" not in said


class Files(Dataset):
    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return float(processes.read(self.path).voxels.max())


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_workers_of_training_have_readers_of_their_own(way, tmp_path):
    """They are daemons, which may have no children that `multiprocessing` makes; and a fork copies our sockets."""
    path = heads.save(tmp_path / "a.nii.gz", *heads.head(12.0))
    here = float(processes.read(path).voxels.max())
    before = [reader.process.pid for reader in processes.POOL.idle]
    loader = DataLoader(Files(path), batch_size=2, num_workers=2, multiprocessing_context=way)
    assert [value for batch in loader for value in batch.tolist()] == [here] * 6
    assert [reader.process.pid for reader in processes.POOL.idle] == before
    assert float(processes.read(path).voxels.max()) == here


@pytest.mark.parametrize(
    "told",
    [
        {"shape": [1 << 20] * 3},
        {"shape": [0, 4, 4]},
        {"dtype": "O"},
        {"dtype": ">i2"},
        {"dtype": "<f8"},
        {"shape": [1000, 1000, 4]},
    ],
)
def test_a_reader_is_not_believed_unseen(told):
    record = {
        "shape": [4, 4, 4],
        "dtype": "<i2",
        "order": "F",
        "kind": "volume",
        "affine": np.eye(4).tolist(),
        "facts": {},
    }
    descriptor = memory.anonymous(128)
    with pytest.raises(ScanError) as refused:
        processes.scan_of(record | told, [descriptor], "a.nii")
    assert refused.value.code == "reader-died"
    with pytest.raises(OSError):
        os.fstat(descriptor)


def test_a_block_cannot_be_cut_while_it_is_mapped():
    descriptor = memory.anonymous(1 << 16)
    processes.seal(descriptor)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
    os.close(descriptor)


def test_nothing_is_left_open(readers):
    data = SEEDS["NIfTI gzip"][1]()
    readers.read(data, "a.nii.gz")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        readers.read(data, "a.nii.gz")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    child = psutil.Process(readers.idle[0].process.pid)
    assert child.num_fds() < 12
