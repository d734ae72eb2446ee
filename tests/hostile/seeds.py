"""Small healthy files of every format, codec and packing that is read here: what the fuzzer mutates."""

import gzip
import io
import itertools
import struct
import tarfile
import zipfile
from collections.abc import Callable
from unittest import mock

import nibabel
import numpy as np
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from tests import heads
from tests.hostile.files import deflated, slice_of

SIDE = 16
COMPRESSED = {
    "RLE": uid.RLELossless,
    "JPEG 2000": uid.JPEG2000Lossless,
    "JPEG-LS": uid.JPEGLSLossless,
}


def voxels(dtype: str = "i2", shape: tuple[int, ...] = (9, 10, 11)) -> np.ndarray:
    """A soft ball in noise."""
    points = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape[:3]], indexing="ij"))
    ball = 200 * np.exp(-4 * (points**2).sum(0)) + np.random.default_rng(0).uniform(0, 20, shape[:3])
    return ball.reshape(shape).astype(dtype)


def nifti(dtype: str, version: int = 1, slope: float | None = None) -> bytes:
    kind = {1: nibabel.Nifti1Image, 2: nibabel.Nifti2Image}[version]
    image = kind(voxels(dtype), np.diag([2.0, 2, 2, 1]))
    data = bytearray(image.to_bytes())
    if slope is not None:
        struct.pack_into("<2f", data, 112, slope, 3.0)
    return bytes(data)


def mgh() -> bytes:
    return nibabel.MGHImage(voxels("f4"), np.diag([2.0, 2, 2, 1])).to_bytes()


def picture(form: str, mode: str = "L") -> bytes:
    pixels = np.add.outer(np.arange(20), 5 * np.arange(24)).astype(np.uint8)
    buffer = io.BytesIO()
    image = Image.fromarray(pixels.astype(np.uint16)) if mode == "I;16" else Image.fromarray(pixels).convert(mode)
    image.save(buffer, form)
    return buffer.getvalue()


def compressed(syntax: uid.UID) -> bytes:
    return heads.to_bytes(slice_of(syntax))


def baseline() -> bytes:
    """JPEG of 8 bits, the common lossy one."""
    data = slice_of(side=SIDE)
    buffer = io.BytesIO()
    Image.fromarray(np.add.outer(np.arange(SIDE), 3 * np.arange(SIDE)).astype(np.uint8)).save(buffer, "JPEG")
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.PixelData = encapsulate([buffer.getvalue()])
    data["PixelData"].VR = "OB"
    data.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    return heads.to_bytes(data)


def lossless() -> bytes:
    """JPEG lossless of 16 bits, which no library here writes: each pixel less its left neighbour."""
    data = slice_of(side=SIDE)
    rows = np.add.outer(np.arange(SIDE), 3 * np.arange(SIDE))
    bits = ""
    for row in range(SIDE):
        for column in range(SIDE):
            before = rows[row, column - 1] if column else rows[row - 1, 0] if row else 1 << 15
            difference = int(rows[row, column] - before)
            size = abs(difference).bit_length()
            bits += f"{size:05b}"  # all sizes have codes of five bits
            if 0 < size < 16:
                bits += f"{difference if difference > 0 else difference + (1 << size) - 1:0{size}b}"
    bits += "1" * (-len(bits) % 8)
    body = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)).replace(b"\xff", b"\xff\0")
    table = bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    stream = (
        b"\xff\xd8\xff\xc3"
        + struct.pack(">HBHHBBBB", 11, 16, SIDE, SIDE, 1, 1, 0x11, 0)
        + b"\xff\xc4"
        + struct.pack(">H", 2 + len(table))
        + table
        + b"\xff\xda"
        + struct.pack(">HBBBBBB", 8, 1, 1, 0, 1, 0, 0)
        + body
        + b"\xff\xd9"
    )
    data.PixelData = encapsulate([stream])
    data["PixelData"].VR = "OB"
    data.file_meta.TransferSyntaxUID = uid.JPEGLosslessSV1
    return heads.to_bytes(data)


def colour() -> bytes:
    data = slice_of(side=SIDE)
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "YBR_FULL", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.PixelData = np.random.default_rng(0).integers(0, 255, SIDE * SIDE * 3).astype(np.uint8).tobytes()
    return heads.to_bytes(data)


def windowed() -> bytes:
    data = slice_of(
        side=SIDE,
        WindowCenter=[20, 30],
        WindowWidth=[40, 50],
        RescaleSlope=2,
        RescaleIntercept=-5,
        PhotometricInterpretation="MONOCHROME1",
    )
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = [64, 0, 16], list(range(0, 640, 10))
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    data.VOILUTSequence = [table]
    return heads.to_bytes(data)


def implicit() -> bytes:
    data = slice_of(side=SIDE)
    data.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def frames() -> bytes:
    return heads.dicom_frames(voxels("u2", (6, 7, 5)).astype(float), np.diag([2.0, 2, 3, 1]))


def slices(count: int = 6, gap: float = 3.0) -> list[bytes]:
    return heads.dicom_slices(voxels("u2", (7, 8, count)).astype(float), np.diag([2.0, 2, gap, 1]))


def zipped(method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for number, file in enumerate(slices()):
            archive.writestr(zipfile.ZipInfo(f"{number}.dcm"), file, method)  # of no date
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number, file in enumerate(slices()):
            member = tarfile.TarInfo(str(number))
            member.size = len(file)
            archive.addfile(member, io.BytesIO(file))
    return buffer.getvalue()


def seed(kind: str) -> bytes:
    """A healthy file, the same at every call: the UIDs of its images are counted, where others are made anew."""
    numbers = itertools.count(1)
    with mock.patch.object(heads, "generate_uid", lambda: f"1.2.3.4.{next(numbers)}"):
        return SEEDS[kind][1]()


# what it is -> the name that a file of it has, and its bytes
SEEDS: dict[str, tuple[str, Callable[[], bytes]]] = {
    **{f"NIfTI {dtype}": ("a.nii", lambda dtype=dtype: nifti(dtype)) for dtype in ("u1", "i2", "i4", "f4", "f8")},
    "NIfTI-2": ("a.nii", lambda: nifti("i2", 2)),
    "NIfTI scaled": ("a.nii", lambda: nifti("i2", slope=0.5)),
    "NIfTI gzip": ("a.nii.gz", lambda: gzip.compress(nifti("f4"), mtime=0)),
    "MGH": ("a.mgh", mgh),
    "MGZ": ("a.mgz", lambda: gzip.compress(mgh(), mtime=0)),
    "PNG": ("a.png", lambda: picture("PNG")),
    "PNG palette": ("a.png", lambda: picture("PNG", "P")),
    "PNG 16 bits": ("a.png", lambda: picture("PNG", "I;16")),
    "JPEG": ("a.jpg", lambda: picture("JPEG", "RGB")),
    "BMP": ("a.bmp", lambda: picture("BMP", "RGB")),
    "GIF": ("a.gif", lambda: picture("GIF")),
    "WEBP": ("a.webp", lambda: picture("WEBP", "RGB")),
    "DICOM": ("a.dcm", lambda: heads.to_bytes(slice_of(side=SIDE))),
    "DICOM implicit": ("a.dcm", implicit),
    "DICOM colour": ("a.dcm", colour),
    "DICOM tables": ("a.dcm", windowed),
    "DICOM deflated": ("a.dcm", lambda: deflated(b"\xfc\xff\xfc\xffOB\0\0\x08\0\0\0" + bytes(8), 1)),
    **{
        f"DICOM {name}": ("a.dcm", lambda syntax=syntax: compressed(syntax)) for name, syntax in COMPRESSED.items()
    },
    "DICOM JPEG": ("a.dcm", baseline),
    "DICOM JPEG lossless": ("a.dcm", lossless),
    "DICOM frames": ("a.dcm", frames),
    "zip": ("a.zip", zipped),
    "zip stored": ("a.zip", lambda: zipped(zipfile.ZIP_STORED)),
    "zip bzip2": ("a.zip", lambda: zipped(zipfile.ZIP_BZIP2)),
    "tar": ("a.tar", tarred),
    "zip LZMA": ("a.zip", lambda: zipped(zipfile.ZIP_LZMA)),
}
