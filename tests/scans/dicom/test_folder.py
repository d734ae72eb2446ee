"""A folder or tar of DICOM files gives the scan that a zip of the series alone gives, and says what lay beside."""

import random
import tarfile
from io import BytesIO

import numpy as np
import pydicom
import pytest

from scans import processes
from scans import read as plain
from scans.scan import ScanError
from tests.heads import RTPLAN, dataset, dicom_frames, dicom_slices, head, to_bytes, zipped

VOXELS, AFFINE = head((10.0, 10.0, 10.0))


def named(files, description, **elements):
    found = []
    for file in files:
        data = pydicom.dcmread(BytesIO(file))
        data.SeriesDescription = description
        for keyword, value in elements.items():
            setattr(data, keyword, value)
        found.append(to_bytes(data))
    return found


@pytest.fixture(scope="module")
def t1():
    return named(dicom_slices(VOXELS, AFFINE, 4), "t1_mprage")


@pytest.fixture(scope="module")
def mixed(t1, tmp_path_factory):
    """Two series and other things, shuffled over folders, under names that say nothing."""
    folder = tmp_path_factory.mktemp("Somebody")
    ct = named(dicom_slices(VOXELS[::2], AFFINE, 9), "head", Modality="CT", PatientID="other")
    files = [*t1, *ct, to_bytes(dataset(RTPLAN, "1.2.3", "1.2.4", 1)), b"x" * 300, b"x"]
    turn = random.Random(0)
    turn.shuffle(files)
    for number, data in enumerate(files):
        place = (
            folder / turn.choice([".", "a", "a/b b", "c"]) / turn.choice(["IM{}", "{}.dcm", "1.2.{}", "s {}.IMA"])
        )
        place = place.with_name(place.name.format(number))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return folder


def tarred(folder):
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.add(folder, "cd")
    return out.getvalue()


@pytest.mark.parametrize("read", [plain.read, processes.read], ids=["here", "reader"])
@pytest.mark.parametrize("form", ["folder", "tar"])
def test_the_answer_is_that_of_the_series_alone(mixed, t1, read, form):
    alone = plain.read(zipped({str(n): file for n, file in enumerate(t1)}), "t1.zip")
    scan = read(mixed) if form == "folder" else read(tarred(mixed), "cd.tar")
    np.testing.assert_array_equal(scan.voxels, alone.voxels)
    np.testing.assert_array_equal(scan.affine, alone.affine)
    assert scan.facts == alone.facts and scan.source.instances == alone.source.instances
    assert [(one.key, one.why_not, one.chosen) for one in scan.series] == [
        ("4", (), True),
        ("9", ("modality",), False),
    ]


def test_another_series_can_be_asked_for(mixed):
    scan = processes.read(mixed, series="9")
    assert scan.facts["modality"] == "CT" and scan.voxels.size == VOXELS[::2].size
    with pytest.raises(ScanError, match=r"no series 5 in it \(4: 24 images .* MR T1; 9: 24 images .* CT\)"):
        processes.read(mixed, series="5")


def test_a_folder_without_images(tmp_path):
    (tmp_path / "notes").write_bytes(b"x" * 300)
    with pytest.raises(ScanError, match="no DICOM file among its 1 file;") as refused:
        processes.read(tmp_path)
    assert refused.value.code == "no-image"
    (tmp_path / "plan").write_bytes(to_bytes(dataset(RTPLAN, "1.2.3", "1.2.4", 1)))
    with pytest.raises(ScanError, match=r"without pictures \(RTPLAN"):
        processes.read(tmp_path)


def test_a_folder_of_many_series_may_hold_more_than_one_scan_may(mixed, monkeypatch):
    monkeypatch.setattr("scans.dicom.headers.MAX_UNPACKED", VOXELS.size * 2 + 24 * 1500)
    assert plain.read(mixed).voxels.shape == plain.read(tarred(mixed), "cd.tar").voxels.shape
    with pytest.raises(ScanError, match="more than the limit"):
        monkeypatch.setattr("scans.dicom.headers.MAX_UNPACKED", VOXELS.size)
        plain.read(mixed)


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"x" * 2000, "not-what-it-says"), (bytes(2048), "no-image"), (None, "truncated")],
)
def test_tars_that_are_none(mixed, data, code):
    whole = tarred(mixed)
    with pytest.raises(ScanError) as refused:
        processes.read(whole[: len(whole) // 2] if data is None else data, "cd.tar")
    assert refused.value.code == code


def test_a_folder_is_looked_through_for_its_scans(mixed, t1, tmp_path, monkeypatch):
    for number, file in enumerate(t1):
        place = tmp_path / "P1" / f"S{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}").write_bytes(file)
    (tmp_path / "P2").symlink_to(mixed)  # links to folders are not followed
    monkeypatch.setattr(processes, "BATCH", 5)
    (one,) = processes.survey(tmp_path, b"salt")
    assert one.path == tmp_path / "P1"
    (same,) = processes.survey(mixed, b"salt")
    (salted,) = processes.survey(mixed, b"other")
    assert same.path == mixed and same.patient == one.patient != salted.patient  # one person in both
    assert "SECRET" not in one.patient.upper() and len(one.patient) == 24
    with pytest.raises(ScanError) as refused:
        processes.survey(tmp_path / "P1", b"salt") and processes.survey(tmp_path / "none")
    assert refused.value.code == "no-image"


def test_one_file_of_any_name(tmp_path):
    path = tmp_path / "IM0001"
    path.write_bytes(dicom_frames(VOXELS, AFFINE))
    assert processes.read(path).voxels.shape == VOXELS.shape
    path.write_bytes(b"x" * 200)
    with pytest.raises(ScanError, match="IM0001: not a kind of file"):
        processes.read(path)
