"""What once killed, swelled, hung or escaped a reader: a table of such files, each with the refusals it may get.

A file that is whole but was mishandled has `READ` among its outcomes. New finds of `benchmarks/fuzz.py` belong
here, or, where they have a few kilobytes, under `found/` as they are.
"""

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from tests import heads

READ = "read"  # the outcome of a file that is whole
BLOCK = 1 << 20


@dataclass(frozen=True)
class Hostile:
    name: str  # its suffix tells the reader
    build: Callable[[], bytes]
    outcomes: frozenset[str]  # codes of `ScanError`, or READ


def repeated(head: bytes, block: bytes, times: int, tail: bytes = b"", wrapping: int = -15) -> tuple[bytes, int]:
    """`head`, a block again and again, `tail`, deflated in a moment; and the CRC-32 of it all."""
    first = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = first.compress(head) + first.flush(zlib.Z_FULL_FLUSH)
    middle = zlib.compressobj(9, zlib.DEFLATED, -15)
    same = middle.compress(block) + middle.flush(zlib.Z_FULL_FLUSH)
    last = zlib.compressobj(9, zlib.DEFLATED, -15)
    end = last.compress(tail) + last.flush()
    check = zlib.crc32(head)
    for _ in range(times):
        check = zlib.crc32(block, check)
    return start + same * times + end, zlib.crc32(tail, check)


def gzipped(head: bytes, block: bytes, times: int, tail: bytes = b"") -> bytes:
    body, check = repeated(head, block, times, tail)
    size = (len(head) + len(block) * times + len(tail)) & 0xFFFFFFFF
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + body + struct.pack("<II", check, size)


def zip_of_one(name: str, head: bytes, block: bytes, times: int) -> bytes:
    """A zip of one file that repeats a block, made without making the file."""
    body, check = repeated(head, block, times)
    size = len(head) + len(block) * times
    fields = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 0x21, check, len(body), size, len(name), 0)
    local = b"PK\x03\x04" + fields + name.encode()
    central = b"PK\x01\x02" + struct.pack("<H", 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name.encode()
    start = len(local) + len(body)
    return local + body + central + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), start, 0)


def nifti(
    shape: tuple[int, ...],
    kind: int,
    bits: int,
    turn: float = 0.0,
    slope: float = 1.0,
    intercept: float = 0.0,
    step: float = 1.0,
) -> bytes:
    """The 352 bytes before the voxels, `step` mm apart; `turn` is the angle about z."""
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into("<2h", head, 70, kind, bits)
    struct.pack_into("<8f", head, 76, 1, step, step, step, 1, 1, 1, 1)
    struct.pack_into("<3f", head, 108, 352, slope, intercept)
    struct.pack_into("<2h", head, 252, 0, 1)
    across, along = np.cos(turn), np.sin(turn)
    middle = -step * np.array(shape[:3]) / 2
    rows = np.array([[across, -along, 0], [along, across, 0], [0, 0, 1]])
    for row, (way, shift) in enumerate(zip(rows, rows @ middle, strict=True)):
        struct.pack_into("<4f", head, 280 + 16 * row, *(step * way), shift)
    head[344:348] = b"n+1\0"
    return bytes(head)


def all_nan() -> bytes:
    """335 MB of NaN in half a megabyte: listed before they were counted, they took 7.5 GB."""
    block = np.full(BLOCK // 4, np.nan, "<f4").tobytes()
    return gzipped(nifti((512, 512, 320), 16, 32), block, 320)


def oblique_and_big(side: int = 645) -> bytes:
    """268 million voxels of one byte, turned: as floats, several times over, they took 3.9 GB."""
    voxels = side**3
    ball = np.zeros(BLOCK, np.uint8)
    ball[::2], ball[::3] = 90, 200
    before = (voxels // 2 - BLOCK // 2) // BLOCK
    rest = voxels - (2 * before + 1) * BLOCK
    return gzipped(
        nifti((side, side, side), 2, 8, turn=0.4),
        bytes(BLOCK),
        before,
        ball.tobytes() + bytes(before * BLOCK + rest),
    )


def microscopic() -> bytes:
    """Voxels of 0.0125 mm: each of the grid's reads tens of thousands, whose places alone took 2.7 GB."""
    ball = np.zeros(BLOCK, np.uint8)
    ball[::2], ball[::3] = 90, 200
    return gzipped(nifti((256, 256, 256), 2, 8, step=0.0125), ball.tobytes(), 16)


def claims_more_than_it_holds() -> bytes:
    """A gzip of a few bytes whose header declares a gigabyte."""
    return gzip.compress(nifti((645, 645, 645), 16, 32) + bytes(1000), mtime=0)


def far_from_zero() -> bytes:
    """A head whose scale factors leave its float32 values no room for 256 bins."""
    voxels, _ = heads.head(6.0)
    return nifti(voxels.shape, 4, 16, slope=1e-3, intercept=1e5, step=6) + voxels.astype("<i2").tobytes("F")


def slice_of(syntax: str | None = None, side: int = 32, **header: object) -> pydicom.Dataset:
    data = heads.dataset(heads.MR, "1.2.3", "1.2.4", 1)
    heads.pixels(data, np.add.outer(np.arange(side), 3 * np.arange(side)))
    if syntax is not None:
        data.compress(
            syntax,
            encoding_plugin="pyjpegls" if syntax in uid.JPEGLSTransferSyntaxes else "pylibjpeg",
            generate_instance_uid=False,
        )
    for keyword, value in header.items():
        setattr(data, keyword, value)
    return data


def one_sample_called_rgb() -> bytes:
    """A healthy JPEG 2000 of one sample: GDCM threw from C++, and the process was gone."""
    return heads.to_bytes(slice_of(uid.JPEG2000Lossless, PhotometricInterpretation="RGB"))


def stream_larger_than_header() -> bytes:
    """A header of 32 × 32 pixels around a JPEG 2000 that says 16,000 × 16,000 of itself."""
    data = slice_of(uid.JPEG2000Lossless)
    part = bytearray(next(pydicom.encaps.generate_frames(data.PixelData, number_of_frames=1)))
    at = part.find(b"\xff\x4f\xff\x51")
    struct.pack_into(">2I", part, at + 8, 16_000, 16_000)
    struct.pack_into(">2I", part, at + 24, 16_000, 16_000)
    data.PixelData = encapsulate([bytes(part)])
    return heads.to_bytes(data)


def deflated(block: bytes, times: int) -> bytes:
    data = slice_of()
    data.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    plain = heads.to_bytes(data)
    start = plain.index(b"\x08\x00\x16\x00UI")  # the first element behind the file's own header
    meta = plain[:start].replace(b"UI\x14\x001.2.840.10008.1.2.1\0", b"UI\x16\x001.2.840.10008.1.2.1.99")
    length = struct.unpack_from("<I", meta, 140)[0] + 2
    meta = meta[:140] + struct.pack("<I", length) + meta[144:]
    body, _ = repeated(plain[start:], block, times)
    return meta + body


def deflated_bomb() -> bytes:
    """Deflated syntax, 2 MB that inflate to 2 GB."""
    return deflated(bytes(BLOCK), 2048)


def many_elements() -> bytes:
    """Millions of empty data elements, a few kilobytes in a zip."""
    plain = heads.to_bytes(slice_of())
    start = plain.index(b"\x08\x00\x16\x00UI")
    element = b"\x08\x00\x05\x10LO\0\0"
    return zip_of_one("a.dcm", plain[:start], element * (BLOCK // 8), 32)


def many_items() -> bytes:
    """The same inside one sequence of known length, which is parsed only when it is asked for."""
    data = slice_of()
    data.NumberOfFrames = 2
    plain = heads.to_bytes(data)
    start = plain.index(b"\x08\x00\x16\x00UI")
    pixels = plain.index(b"\xe0\x7f\x10\x00O")
    item = b"\xfe\xff\x00\xe0\x08\0\0\0" + b"\x20\x00\x05\x10LO\0\0"
    size = 16 * (BLOCK // 16) * 32
    head = plain[start - start : pixels] + b"\x00\x52\x30\x92SQ\0\0" + struct.pack("<I", size)
    return zip_of_one("a.dcm", head, item * (BLOCK // 16), 32)


def many_files() -> bytes:
    """Twenty thousand small DICOM files: parsing them held whoever came behind for a minute."""
    plain = heads.to_bytes(slice_of(side=4))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for number in range(20_000):
            archive.writestr(f"{number}.dcm", plain)
    return buffer.getvalue()


def packed(method: int, damage: bool) -> bytes:
    """A series in a zip whose members are packed by bzip2 or LZMA, a byte in the middle of one turned."""
    voxels, affine = heads.head((12.0, 12.0, 14.0))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for number, file in enumerate(heads.dicom_slices(voxels, affine)):
            archive.writestr(f"{number}.dcm", file)
        second = archive.infolist()[1].header_offset
    data = bytearray(buffer.getvalue())
    if damage:
        for at in range(second - 120, second - 60):
            data[at] ^= 0x55
    return bytes(data)


def dictionary(size: int) -> bytes:
    """A series packed by LZMA, one member of which says that it looks back so many bytes."""
    data = bytearray(packed(zipfile.ZIP_LZMA, False))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        second = archive.infolist()[1]
    struct.pack_into("<I", data, second.header_offset + 30 + len(second.filename) + 5, size)
    return bytes(data)


def gif_of(side: int = 8190) -> bytes:
    """51 kB of 67 million pixels: floats of three colours, several times over, took 3.4 GB."""
    picture = Image.new("P", (side, side))
    picture.putpalette([0, 0, 0, 200, 200, 200])
    picture.putpixel((5, 5), 1)
    buffer = io.BytesIO()
    picture.save(buffer, "GIF")
    return buffer.getvalue()


def strip() -> bytes:
    """Four rows of a million pixels, which no square grid can cover."""
    picture = Image.new("L", (1_000_000, 4))
    picture.putpixel((5, 1), 200)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def frames_in_colour() -> bytes:
    """A film in colour, as ultrasound makes them."""
    data = slice_of()
    data.NumberOfFrames, data.SamplesPerPixel, data.PhotometricInterpretation = 4, 3, "RGB"
    data.PlanarConfiguration, data.BitsAllocated, data.BitsStored, data.HighBit = 0, 8, 8, 7
    data.PixelData = np.arange(4 * 32 * 32 * 3).astype(np.uint8).tobytes()
    return heads.to_bytes(data)


def changed_series(**header: object) -> bytes:
    """A series one image of which has a header that cannot be."""
    voxels, affine = heads.head((12.0, 12.0, 14.0))
    files = heads.dicom_slices(voxels, affine)
    data = pydicom.dcmread(io.BytesIO(files[3]))
    for keyword, value in header.items():
        data[keyword] = pydicom.DataElement(pydicom.datadict.tag_for_keyword(keyword), "LO", value)
    files[3] = heads.to_bytes(data)
    return heads.zipped({f"{number}.dcm": file for number, file in enumerate(files)})


def hostile(name: str, build: Callable[[], bytes], *outcomes: str) -> Hostile:
    return Hostile(name, build, frozenset(outcomes))


HOSTILE = {
    "all NaN": hostile("a.nii.gz", all_nan, "not-finite"),
    "more than it holds": hostile("a.nii.gz", claims_more_than_it_holds, "truncated"),
    "oblique and big": hostile("a.nii.gz", oblique_and_big, READ),
    "microscopic": hostile("a.nii.gz", microscopic, READ),
    "far from zero": hostile("a.nii", far_from_zero, READ),
    "one sample called RGB": hostile("a.dcm", one_sample_called_rgb, "bad-header"),
    "stream larger than header": hostile("a.dcm", stream_larger_than_header, "bad-header"),
    "deflated bomb": hostile("a.dcm", deflated_bomb, "too-large"),
    "many elements": hostile("a.zip", many_elements, "too-large"),
    "many items": hostile("a.zip", many_items, "too-large"),
    "many files": hostile("a.zip", many_files, "too-slow", "too-large", "several-volumes", "no-image"),
    "whole bzip2": hostile("a.zip", lambda: packed(zipfile.ZIP_BZIP2, False), READ),
    "damaged bzip2": hostile("a.zip", lambda: packed(zipfile.ZIP_BZIP2, True), "truncated"),
    "whole LZMA": hostile("a.zip", lambda: packed(zipfile.ZIP_LZMA, False), READ),
    "damaged LZMA": hostile("a.zip", lambda: packed(zipfile.ZIP_LZMA, True), "truncated"),
    "LZMA that looks back 256 MB": hostile("a.zip", lambda: dictionary(256 << 20), READ),
    "LZMA that looks back a gigabyte": hostile("a.zip", lambda: dictionary(1 << 30), "too-large"),
    "GIF of 8190": hostile("a.gif", gif_of, READ),
    "strip": hostile("a.png", strip, "absurd-dimensions"),
    "frames in colour": hostile("a.dcm", frames_in_colour, "rgb"),
    "text for a place": hostile(
        "a.zip", lambda: changed_series(ImagePositionPatient="here"), "bad-header", "uneven-slices"
    ),
    "text for a spacing": hostile(
        "a.zip", lambda: changed_series(PixelSpacing="1\\x"), "bad-header", "uneven-slices"
    ),
    "a slope that is no number": hostile("a.zip", lambda: changed_series(RescaleSlope="nan"), "bad-header"),
    "a place at infinity": hostile(
        "a.zip", lambda: changed_series(ImagePositionPatient="1e999\\0\\0"), "bad-header", "uneven-slices"
    ),
}
