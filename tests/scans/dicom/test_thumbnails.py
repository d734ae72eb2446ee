"""A small picture of each series: its middle image, fitted into a square; one that cannot be drawn has none."""

import io
import tarfile

import numpy as np
import pydicom

from scans import processes
from scans.processes import SIDE
from tests.heads import MR, dataset, dicom_frames, dicom_slices, head, pixels, to_bytes, zipped


def series(number, broken=False):
    """Twenty images 40 wide and 20 high; the middle one alone has a bright left half."""
    voxels = np.zeros((40, 20, 21))
    voxels[20:, :, 10] = 100  # the right-most voxel is the first pixel
    files = dicom_slices(voxels, np.eye(4), number)
    if broken:
        files = [to_bytes(cut(pydicom.dcmread(io.BytesIO(file)))) for file in files]
    return {f"{number}.{place}": file for place, file in enumerate(files[::-1])}


def cut(data):
    data.PixelData = data.PixelData[:100]
    return data


def shown(grey):
    return np.frombuffer(grey, np.uint8).reshape(SIDE, SIDE)


def test_the_middle_of_each_series_fits_into_a_square(tmp_path):
    files = series(4) | series(7, broken=True)
    packed = tmp_path / "packed"
    packed.mkdir()
    for name, data in files.items():
        (packed / name).write_bytes(data)
    (tmp_path / "a.zip").write_bytes(zipped(files))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(packed, "x")
    for file in (packed, tmp_path / "a.zip", tmp_path / "a.tar"):
        found = processes.thumbnails(file)
        assert set(found) == {"4"}
        picture = shown(found["4"])
        assert picture[32, 15] == 255 and picture[32, 50] == 0  # the bright half on the left
        assert not picture[:15].any() and not picture[-15:].any()  # twice as wide as high


def test_a_single_file(tmp_path):
    (tmp_path / "a.dcm").write_bytes(dicom_frames(*head((20.0, 20.0, 20.0))))
    (picture,) = processes.thumbnails(tmp_path / "a.dcm").values()
    assert shown(picture).max() == 255
    colour = dataset(MR, "1.2.3", "1.2.4", 1)
    pixels(colour, np.zeros((30, 30)))
    colour.SamplesPerPixel, colour.PhotometricInterpretation, colour.PlanarConfiguration = 3, "RGB", 0
    colour.BitsAllocated = colour.BitsStored = 8
    colour.HighBit, colour.PixelData = 7, bytes(range(90)) * 30
    (tmp_path / "b.dcm").write_bytes(to_bytes(colour))
    (picture,) = processes.thumbnails(tmp_path / "b.dcm").values()
    assert shown(picture)[32, 0] == 0 and shown(picture)[32, 63] == 255
