"""The uploads folder: one owner, names of its own, a share of the disk, and housekeeping that survives."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from server import folder
from server.folder import NoRoom, Uploads
from tests.support import ROOT

MB = 1 << 20


@pytest.fixture
def uploads(tmp_path: Path):
    made = Uploads(tmp_path / "up", MB)
    yield made
    made.close()


def put(uploads: Uploads, data: bytes = b"x", name: str = "head.nii.gz") -> folder.Upload:
    upload = uploads.new(name)
    upload.path.write_bytes(data)
    uploads.arrived(upload)
    return upload


def test_only_files_of_our_naming_are_counted_purged_and_swept(uploads, tmp_path):
    mine = [tmp_path / "up" / name for name in ("scan.nii.gz", "scanwise-1.nii.gz", "." + "0" * 32)]
    for path in mine:
        path.write_bytes(b"mine")
        os.utime(path, (0, 0))
    ours = put(uploads)
    assert uploads.files() == [ours.path]
    os.utime(ours.path, (0, 0))
    uploads.purge(60)
    uploads.sweep()
    assert not ours.path.exists() and all(path.read_bytes() == b"mine" for path in mine)


def test_a_folder_that_another_server_holds_is_refused_and_left_alone(uploads, tmp_path):
    held = put(uploads)
    code = (
        f"from pathlib import Path; from server.folder import Uploads; Uploads(Path({str(tmp_path / 'up')!r}), 1)"
    )
    other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert f"another server (process {os.getpid()}) keeps its uploads here" in other.stderr
    assert held.path.exists()


def test_a_folder_that_was_let_go_can_be_held_again(tmp_path):
    Uploads(tmp_path / "up", MB).close()
    assert list((tmp_path / "up").iterdir()) == []
    Uploads(tmp_path / "up", MB).close()


def test_a_file_in_the_folders_place_is_refused_in_words(tmp_path):
    (tmp_path / "up").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cannot hold uploads .*--uploads"):
        Uploads(tmp_path / "up", MB)


def test_what_has_begun_counts_before_it_has_come(uploads):
    for number in range(20):
        uploads.reserve(number, MB)
    with pytest.raises(NoRoom, match="20 MB together; try again"):
        uploads.reserve("one more", 1)
    uploads.release(3)
    uploads.reserve("one more", MB)


def test_a_file_takes_what_it_holds_once_it_is_there_and_nothing_when_it_goes(uploads):
    upload = uploads.new("a.nii")
    uploads.reserve(upload.path, 20 * MB)
    upload.path.write_bytes(bytes(MB))
    assert uploads.arrived(upload)
    uploads.reserve("next", 19 * MB)
    with pytest.raises(NoRoom):
        uploads.reserve("too much", 1)
    uploads.remove(upload)
    uploads.reserve("too much", MB)


def test_a_disk_that_is_nearly_full_is_told(uploads, monkeypatch):
    usage = shutil.disk_usage(uploads.folder)
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda path: usage._replace(free=folder.SPARE + MB // 2))
    uploads.reserve("small", MB // 4)
    with pytest.raises(NoRoom, match="disk is nearly full"):
        uploads.reserve("large", MB)


def test_what_still_arrives_is_not_purged(uploads):
    arriving = uploads.new("a.nii")
    arriving.path.write_bytes(b"x")
    os.utime(arriving.path, (0, 0))
    uploads.purge(60)
    assert arriving.path.exists()
    assert uploads.arrived(arriving)
    os.utime(arriving.path, (0, 0))
    uploads.purge(60)
    assert not arriving.path.exists() and not uploads.arrived(arriving)


def test_housekeeping_survives_a_folder_that_goes_and_makes_it_again(uploads):
    put(uploads)
    shutil.rmtree(uploads.folder)
    assert uploads.files() == [] and uploads.count == 0
    with pytest.raises(NoRoom, match="gone or cannot be written"):
        uploads.reserve("a", 1)
    uploads.keep_house(60)
    assert uploads.trouble is None and uploads.held()
    uploads.reserve("a", 1)


def test_housekeeping_tells_what_it_cannot_mend(uploads):
    shutil.rmtree(uploads.folder)
    uploads.folder.write_bytes(b"a file stands here now")
    uploads.keep_house(60)
    assert "gone" in uploads.trouble
    uploads.folder.unlink()
    uploads.keep_house(60)
    assert uploads.trouble is None


def test_housekeeping_survives_files_that_cannot_be_removed(uploads, monkeypatch):
    old = put(uploads)
    os.utime(old.path, (0, 0))

    def refuse(self, missing_ok=False):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        uploads.keep_house(60)
        assert "cannot be removed" in uploads.trouble
    uploads.keep_house(60)
    assert uploads.trouble is None and not old.path.exists()


def test_a_name_of_any_length_keeps_its_suffix(uploads):
    upload = uploads.new("x" * 300 + ".nii.gz")
    assert upload.path.name.endswith(".nii.gz") and folder.OURS.fullmatch(upload.path.name)


def test_what_never_came_is_let_go_of_without_trouble(uploads):
    upload = uploads.new("a.nii")
    uploads.reserve(upload.path, 20 * MB)
    uploads.remove(upload)
    assert uploads.trouble is None and uploads.taken == 0
