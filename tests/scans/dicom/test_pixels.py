"""The pixels of a DICOM file: what goes in compressed comes out, and no stream is larger than its header says."""

import io
import struct

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate, generate_frames

from scans.dicom import pixels
from scans.read import read
from scans.scan import ScanError
from tests.heads import to_bytes
from tests.hostile import seeds
from tests.hostile.files import slice_of

RAMP = np.add.outer(np.arange(32), 3 * np.arange(32))


@pytest.mark.parametrize("syntax", [None, uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLSLossless])
def test_a_picture_survives_its_compression(syntax):
    np.testing.assert_array_equal(read(to_bytes(slice_of(syntax)), "a.dcm").voxels, RAMP)


def test_lossless_and_lossy_jpeg():
    there = np.add.outer(np.arange(16), 3 * np.arange(16))
    np.testing.assert_array_equal(read(seeds.lossless(), "a.dcm").voxels, there)
    assert np.abs(read(seeds.baseline(), "a.dcm").voxels - there).max() <= 3


def test_colours_become_red_green_and_blue():
    red = np.zeros((16, 16, 3), np.uint8)
    red[2:9] = (255, 0, 0)
    data = slice_of(side=16)
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "YBR_FULL", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.PixelData = np.asarray(Image.fromarray(red).convert("YCbCr")).tobytes()
    assert np.abs(read(to_bytes(data), "a.dcm").voxels.astype(int) - red).max() <= 3


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"Rows": 0}, "absurd-dimensions", "0×32"),
        ({"Rows": 33}, "truncated", "break off after 2,048 bytes of 2,112"),
        ({"BitsAllocated": 12}, "bad-header", "1 sample[s]? of 12 bits"),
        ({"SamplesPerPixel": 2}, "bad-header", "2 samples of 16 bits"),
        ({"SamplesPerPixel": 3}, "bad-header", "3 samples a pixel, and their meaning is MONOCHROME2"),
        ({"PhotometricInterpretation": "SECRET NAME"}, "truncated", r"\(ValueError\)"),
        ({"PhotometricInterpretation": "RGB"}, "bad-header", "1 sample a pixel, and their meaning is RGB"),
    ],
)
def test_what_a_header_cannot_mean(changes, code, words):
    data = to_bytes(slice_of(**changes))
    with pytest.raises(ScanError, match=words) as refused:
        read(data, "a.dcm")
    assert refused.value.code == code and "SECRET" not in str(refused.value)


def test_a_method_that_is_not_read_here_is_named_by_its_number_alone():
    data = slice_of(uid.RLELossless)
    data.file_meta.TransferSyntaxUID = uid.MPEG2MPML
    with pytest.raises(ScanError, match=r"1\.2\.840\.10008\.1\.2\.4\.100") as refused:
        read(to_bytes(data), "a.dcm")
    assert refused.value.code == "unknown-type"
    assert pixels.plain("SECRET") == "one unknown here" == pixels.plain("1.2.3 Secret")


@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.JPEGLSLossless])
def test_a_stream_tells_its_size(syntax):
    part = next(generate_frames(slice_of(syntax).PixelData, number_of_frames=1))
    assert pixels.stream_size(part) == (32, 32, 1)
    assert pixels.stream_size(part[:8]) is None and pixels.stream_size(b"") is None


@pytest.mark.parametrize("mode, samples", [("L", 1), ("RGB", 3)])
def test_a_jpeg_tells_its_size(mode, samples):
    buffer = io.BytesIO()
    Image.new(mode, (40, 24)).save(buffer, "JPEG", comment=b"\xff\xc0 in a comment")
    assert pixels.stream_size(buffer.getvalue()) == (24, 40, samples)


def test_a_jpeg_larger_than_its_header_is_refused_before_it_is_decoded(monkeypatch):
    data = pydicom.dcmread(io.BytesIO(seeds.baseline()))
    part = bytearray(next(generate_frames(data.PixelData, number_of_frames=1)))
    at = part.index(b"\xff\xc0")
    struct.pack_into(">HH", part, at + 5, 60_000, 60_000)
    data.PixelData = encapsulate([bytes(part)])
    monkeypatch.setattr(pixels, "get_decoder", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(ScanError, match=r"16×16 pixels of 1 .* is 60000×60000 of 1") as refused:
        read(to_bytes(data), "a.dcm")
    assert refused.value.code == "bad-header"


def test_every_decoder_is_there():
    for syntax, plugin in pixels.DECODERS.items():
        assert plugin in pixels.get_decoder(syntax).available_plugins


def frames_of(count: int) -> pixels.Pixels:
    header = slice_of(side=4, NumberOfFrames=count)
    values = np.arange(16 * count, dtype="<u2").tobytes()
    return pixels.Pixels(header, "PixelData", uid.ExplicitVRLittleEndian, memoryview(values), False)


def test_each_frame_is_its_own_bytes():
    three = frames_of(3)
    for index in (0, 1, 2):
        np.testing.assert_array_equal(three.frame(index, "a.dcm").ravel(), np.arange(16) + 16 * index)


@pytest.mark.parametrize("syntax", [None, uid.RLELossless])
def test_what_unpacking_may_take_is_given_back(syntax, monkeypatch):
    asked = []
    data = slice_of(syntax)
    one = pixels.Pixels(data, "PixelData", data.file_meta.TransferSyntaxUID, data.PixelData, syntax is not None)
    monkeypatch.setattr(pixels, "grow", asked.append)
    one.frame(0, "a.dcm")
    assert sum(asked) == 0 and max(asked) == (4 * 2 * 32 * 32 if syntax else 0)
