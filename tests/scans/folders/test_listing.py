"""Files below a folder: what may be DICOM is listed, opened and mapped; what is none is left."""

import os

import pytest

from scans.folders import listing
from scans.folders.listing import Folder
from scans.scan import ScanError

APART = (".nii.gz", ".png")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    for name in ("IM1", "a/1.2.840.dcm", "a/b/x.IMA", ".DS_Store", ".hidden/IM2", "head.NII.gz", "a/b/notes.txt"):
        (tmp_path / name).write_bytes(name.encode() * 40)
    return tmp_path


def test_any_name_and_nesting(folder):
    assert listing.listing(folder, "cd", APART) == ("IM1", "a/1.2.840.dcm", "a/b/notes.txt", "a/b/x.IMA")


def test_too_many_and_none(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(listing, "MAX_FILES", 3)
    with pytest.raises(ScanError, match="cd: more than 3 files") as refused:
        listing.listing(folder, "cd", APART)
    assert refused.value.code == "too-large"
    with pytest.raises(ScanError, match="empty: no file in this folder") as refused:
        listing.listing(folder / ".hidden" / "..", "empty", ("",))
    assert refused.value.code == "no-image"


def test_files_are_opened_by_path_or_by_descriptor(folder):
    handle = os.open(folder, os.O_RDONLY)
    for root in (folder, handle):
        files = Folder(root, ("IM1", "a/b/x.IMA"))
        assert files.read("IM1") == b"IM1" * 40
        assert bytes(files.mapped("a/b/x.IMA")[:9]) == b"a/b/x.IMA"
        assert files.mapped("IM1") is None  # 120 bytes: less than any DICOM file
        with pytest.raises(OSError):
            files.open("a")
        with pytest.raises(OSError):
            files.open("gone")
    os.close(handle)
