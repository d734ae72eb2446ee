"""DICOM in memory: geometry kept, hostile and wrong zips refused in words, nothing on disk, no name anywhere."""

import json
import tempfile
import zipfile
from io import BytesIO

import nibabel
import numpy as np
import pydicom
import pytest

from scans.dicom import files as dicom
from scans.read import read
from scans.scan import ScanError
from tests.heads import MR, RTPLAN, dataset, dicom_frames, dicom_slices, head, pixels, to_bytes, zipped
from tests.support import ROOT

HERE = sorted((ROOT.parent / "shared/data/dicom").glob("*"))


@pytest.fixture(scope="module")
def phantom():
    return head((12.0, 12.0, 14.0))


@pytest.fixture(autouse=True)
def nothing_is_left_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == []


def refusal(data, name="series.zip", **options):
    with pytest.raises(ScanError) as refused:
        read(data, name, **options)
    assert "Secret" not in str(refused.value) and "SECRET" not in str(refused.value)
    return refused.value


def series(files, folder="series"):
    return {f"{folder}/{number:03}.dcm": data for number, data in enumerate(files)}


def same_place(scan, phantom):
    """The scan holds the phantom's numbers at the phantom's places in the world."""
    voxels, affine = phantom
    turn = nibabel.io_orientation(scan.affine)
    back = nibabel.apply_orientation(scan.voxels, turn)
    placed = scan.affine @ nibabel.orientations.inv_ornt_aff(turn, scan.voxels.shape)
    np.testing.assert_allclose(back, np.floor(voxels), atol=0.01)
    np.testing.assert_allclose(placed, affine, atol=1e-3)


@pytest.mark.parametrize("manufacturer", ["Phantom", "SIEMENS", "GE MEDICAL SYSTEMS", "Philips"])
def test_a_series_keeps_its_geometry(phantom, manufacturer):
    files = dicom_slices(*phantom, manufacturer=manufacturer)
    scan = read(zipped(series(files[::-1]) | {"README.txt": b"hello"}), "series.zip")
    same_place(scan, phantom)
    assert scan.facts["format"] == "DICOM" and scan.facts["modality"] == "MR"
    assert "Secret" not in json.dumps(scan.facts)


@pytest.mark.parametrize("time", [1, 3])
def test_one_multi_frame_file(phantom, time):
    same_place(read(dicom_frames(*phantom, time), "series.dcm"), phantom)
    same_place(read(zipped({"a.dcm": dicom_frames(*phantom, time)}), "series.zip"), phantom)


def test_a_single_image_is_a_picture():
    data = dataset(MR, "1.2.3", "1.2.4", 1)
    ramp = np.add.outer(np.arange(30), np.arange(40))
    pixels(data, ramp)
    scan = read(to_bytes(data), "slice.dcm")
    assert scan.kind == "image" and scan.facts["modality"] == "MR"
    np.testing.assert_array_equal(scan.voxels, ramp)
    data.PhotometricInterpretation = "MONOCHROME1"
    np.testing.assert_array_equal(read(to_bytes(data), "slice.dcm").voxels, ramp[::-1, ::-1])


def test_an_old_file_without_a_preamble():
    data = dataset(MR, "1.2.3", "1.2.4", 1)
    pixels(data, np.add.outer(np.arange(30), np.arange(40)))
    whole = to_bytes(data)
    bare = whole[132:]  # from the first element of group 2 on
    np.testing.assert_array_equal(read(bare, "slice.dcm").voxels, read(whole, "slice.dcm").voxels)


def test_a_single_compressed_image():
    data = dataset(MR, "1.2.3", "1.2.4", 1)
    ramp = np.add.outer(np.arange(30), np.arange(40))
    pixels(data, ramp)
    data.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    np.testing.assert_array_equal(read(to_bytes(data), "slice.dcm").voxels, ramp)


def test_two_series_are_listed_and_one_can_be_chosen(phantom):
    voxels, affine = phantom
    other = dicom_slices(voxels[:, ::2], affine, 12)
    both = zipped(series(dicom_slices(voxels, affine, 3), "a") | series(other, "b"))
    error = refusal(both)
    assert error.code == "several-series"
    assert f"3: {voxels.shape[2]} images" in str(error) and f"12: {voxels.shape[2]} images" in str(error)
    same_place(read(both, "series.zip", series="3"), phantom)
    assert read(both, "series.zip", series="12").voxels.size == voxels[:, ::2].size
    assert "no series 7" in str(refusal(both, series="7"))


def test_no_image():
    plan = to_bytes(dataset(RTPLAN, "1.2.3", "1.2.4", 1))
    for error in (refusal(zipped({"plan.dcm": plan})), refusal(plan, "plan.dcm")):
        assert error.code == "no-image" and "RTPLAN" in str(error)
    assert refusal(zipped({"notes.txt": b"hello"})).code == "no-image"
    assert refusal(zipped({})).code == "no-image"


@pytest.mark.parametrize("path", ["../up.dcm", "/etc/up.dcm", "a/../../up.dcm", "..\\up.dcm", "C:/up.dcm"])
def test_paths_that_climb_out(phantom, path):
    error = refusal(zipped({path: dicom_slices(*phantom)[0]}))
    assert error.code == "unsafe-zip" and "climbs out" in str(error)


def test_encrypted():
    data = bytearray(zipped({"a.dcm": b"secret"}))
    with zipfile.ZipFile(BytesIO(data)) as archive:
        start = archive.start_dir
    data[6] |= 1
    data[start + 8] |= 1
    error = refusal(bytes(data))
    assert error.code == "encrypted" and "password" in str(error)


def test_damaged_and_too_large_zips(phantom):
    whole = zipped(series(dicom_slices(*phantom)))
    assert refusal(whole[: len(whole) // 2]).code == "truncated"
    error = refusal(zipped({"a.dcm": bytes(5_000_000)}), limit=1_000_000)
    assert error.code == "too-large" and "5,000,000" in str(error)


def test_a_zip_that_lies_about_its_size(phantom):
    data = bytearray(zipped({"a.dcm": bytes(5_000_000)}))
    size = (5_000_000).to_bytes(4, "little")
    while size in data:
        at = data.index(size)
        data[at : at + 4] = (1000).to_bytes(4, "little")
    assert refusal(bytes(data), limit=1_000_000).code in ("too-large", "truncated", "no-image")


def test_too_many_files(monkeypatch):
    monkeypatch.setattr(dicom, "MAX_FILES", 3)
    assert refusal(zipped({f"{n}.dcm": b"x" for n in range(4)})).code == "too-large"


def test_a_missing_slice_and_too_few(phantom):
    files = dicom_slices(*phantom)
    error = refusal(zipped(series(files[:5] + files[7:])))
    assert error.code == "uneven-slices" and "missing" in str(error)
    assert refusal(zipped(series(files[:2]))).code == "too-few-slices"


@pytest.mark.parametrize("modality, gap", [("CT", 2), ("CT", 1e7)])
def test_ct_of_two_steps_is_evened_out_unless_it_would_fill_the_memory(phantom, modality, gap):
    voxels, affine = phantom
    files = []
    for k, file in enumerate(dicom_slices(voxels, affine)):
        data = pydicom.dcmread(BytesIO(file))
        data.Modality = modality
        beyond = max(0, k - 8)  # the upper slices lie further apart
        data.ImagePositionPatient[2] = affine[2, 3] + 14 * (k + beyond * (gap - 1))
        files.append(to_bytes(data))
    if gap > 1000:
        assert refusal(zipped(series(files))).code == "uneven-slices"
        return
    scan = read(zipped(series(files)), "series.zip")
    assert scan.facts["modality"] == modality
    assert sorted(scan.facts["spacing"]) == pytest.approx([12, 12, 14])
    assert max(scan.facts["shape"]) >= 8 + 2 * (len(files) - 9)


def test_several_volumes(phantom):
    files = dicom_slices(*phantom)
    again = []
    for shift, file in enumerate(files):
        data = pydicom.dcmread(BytesIO(file))
        data.InstanceNumber = len(files) + shift + 1
        data.PixelData = bytes(len(data.PixelData) - 2) + b"\1\0"
        again.append(to_bytes(data))
    assert refusal(zipped(series(files + again))).code == "several-volumes"


def test_damaged_pixels(phantom):
    data = pydicom.dcmread(BytesIO(dicom_slices(*phantom)[0]))
    data.PixelData = data.PixelData[:100]
    assert refusal(to_bytes(data), "slice.dcm").code == "truncated"
    data.Rows = data.Columns = 60000
    assert refusal(to_bytes(data), "slice.dcm").code == "too-large"


# Patients' data stay out of the repository; where they lie beside it, they are read too. The rest is made here.
@pytest.mark.skipif(not HERE, reason="the real DICOM files in ../shared/data/dicom are not on this machine")
@pytest.mark.parametrize(
    "name, shape, modality",
    [
        ("siemens_trio_mprage.zip", [256, 256, 176], "MR"),
        ("torchio_test.zip", [88, 128, 17], "CT"),
        ("niivue_enh.dcm", [64, 64, 6], "MR"),
    ],
)
def test_real_series(name, shape, modality):
    scan = read(next(path for path in HERE if path.name == name))
    assert sorted(scan.facts["shape"]) == sorted(shape) and scan.facts["modality"] == modality


@pytest.mark.parametrize(
    "syntax",
    [pydicom.uid.ImplicitVRLittleEndian, pydicom.uid.DeflatedExplicitVRLittleEndian],
    ids=lambda uid: uid.name,
)
def test_other_ways_to_write_the_same_picture(syntax):
    data = dataset(MR, "1.2.3", "1.2.4", 1)
    ramp = np.add.outer(np.arange(30), np.arange(40))
    pixels(data, ramp)
    data.file_meta.TransferSyntaxUID = syntax
    np.testing.assert_array_equal(read(to_bytes(data), "slice.dcm").voxels, ramp)


def test_pixels_may_be_floats():
    data = dataset(MR, "1.2.3", "1.2.4", 1)
    ramp = np.add.outer(np.arange(30), np.arange(40)) / 7
    pixels(data, ramp)
    del data.PixelData, data.BitsStored, data.HighBit, data.PixelRepresentation
    data.BitsAllocated, data.FloatPixelData = 32, ramp.astype("<f4").tobytes()
    np.testing.assert_array_equal(read(to_bytes(data), "slice.dcm").voxels, ramp.astype(np.float32))


@pytest.mark.parametrize("missing", ["Rows", "PixelData"])
def test_half_of_a_picture_is_none(missing):
    data = dataset(MR, "1.2.3", "1.2.4", 1)
    pixels(data, np.add.outer(np.arange(30), np.arange(40)))
    delattr(data, missing)
    error = refusal(to_bytes(data), "slice.dcm")
    assert error.code == "no-image" and "without a picture (MR)" in str(error)


def test_a_copy_of_an_image_is_the_same_image(phantom):
    files = dicom_slices(*phantom)
    same_place(read(zipped(series(files) | series(files[3:7], "copied")), "series.zip"), phantom)


def test_the_best_series_is_taken_and_the_others_are_told(phantom):
    voxels, affine = phantom
    t1 = [changed(file, SeriesDescription="t1 mprage Secret") for file in dicom_slices(voxels, affine, 5)]
    t2 = [changed(file, SeriesDescription="t2 tse Secret") for file in dicom_slices(voxels[:, ::2], affine, 2)]
    both = zipped(series(t2, "a") | series(t1, "b"))
    scan = read(both, "series.zip")
    same_place(scan, phantom)
    assert [(one.key, one.why_not, one.chosen) for one in scan.series] == [
        ("2", ("not-t1",), False),
        ("5", (), True),
    ]
    other = read(both, "series.zip", series="2")
    assert other.voxels.size == voxels[:, ::2].size
    assert [(one.key, one.chosen) for one in other.series] == [("2", True), ("5", False)]
    assert "Secret" not in repr(scan) + json.dumps([one.record() for one in scan.series])


def test_a_scan_knows_where_its_planes_come_from(phantom):
    files = [changed(file, FrameOfReferenceUID="1.2.9") for file in dicom_slices(*phantom)]
    scan = read(zipped(series(files[::-1])), "series.zip")
    heads = [pydicom.dcmread(BytesIO(file)) for file in files]
    assert [one.uid for one in scan.source.instances] == [head.SOPInstanceUID for head in heads]
    assert [one.position for one in scan.source.instances] == [
        pytest.approx([float(n) for n in head.ImagePositionPatient]) for head in heads
    ]
    told = scan.source.dataset()
    assert told.PatientName == "Phantom^Secret" and told.FrameOfReferenceUID == "1.2.9"
    assert told.StudyInstanceUID == heads[0].StudyInstanceUID and "PixelData" not in told
    assert "Secret" not in repr(scan) + str(scan.facts)


def changed(file, **elements):
    data = pydicom.dcmread(BytesIO(file))
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    return to_bytes(data)
