"""DICOM files: a zip of one series, or a single file, in; a `Scan` out. Where slices lie is `series`' part.

Everything is unpacked in memory, and counted: files, bytes, data elements, frames, pixels. Only the elements of a
header that geometry and pixels need are kept at all; the list of series in a refusal speaks in numbers.
"""

import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
from pydicom import Dataset, uid
from pydicom.datadict import tag_for_keyword
from pydicom.errors import BytesLengthException
from pydicom.filereader import read_dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.tag import BaseTag

from scans.dicom.pixels import Pixels
from scans.dicom.series import assemble
from scans.memory import grow
from scans.scan import MAX_PIXELS, Data, Scan, ScanError, View, image, what

MAX_FILES = 20_000
MAX_ELEMENTS = 500_000  # of all the files of a zip; a thousand slices have some 150,000
MAX_UNPACKED = 640 << 20  # bytes of them; as many voxels as a scan may have take 512 MB with two bytes each
SERIES_SHOWN = 20
BAND = 256  # rows of a picture whose brightness is worked out at once
CHUNK = 1 << 20
PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00010: "PixelData"}
UNDEFINED = 0xFFFFFFFF  # the length of what ends with a delimiter: compressed pixels
WIDE_HEADER = ("OB", "OD", "OF", "OL", "OV", "OW", "UN")  # value types with four bytes for their length
KEPT: list[BaseTag | int] = [
    cast(int, tag_for_keyword(keyword))
    for keyword in (
        "SpecificCharacterSet",
        "ImageType",
        "SOPInstanceUID",
        "Modality",
        "SeriesInstanceUID",
        "SeriesNumber",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "SliceThickness",
        "SpacingBetweenSlices",
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "PlanarConfiguration",
        "NumberOfFrames",
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
        "SmallestImagePixelValue",
        "LargestImagePixelValue",
        "PixelPaddingValue",
        "WindowCenter",
        "WindowWidth",
        "VOILUTFunction",
        "RescaleIntercept",
        "RescaleSlope",
        "RescaleType",
        "ModalityLUTSequence",
        "VOILUTSequence",
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
    )
]

ODD_HEADERS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


@dataclass(frozen=True, eq=False)
class File:
    """A DICOM file that holds pixels, or one that does not."""

    header: Dataset  # what `KEPT` names
    pixels: Pixels | None


class Counted(View):
    """A file's content that counts how often it is read: about twice for each data element, nested ones too."""

    def __init__(self, data: Data | bytearray | memoryview, count: Callable[[int], None]):
        super().__init__(data)
        self.count = count

    def read(self, size: int | None = -1) -> bytes:
        self.count(1)
        return super().read(size)


class Reading:
    """One file or zip being read: its name, and what it may still unpack to."""

    def __init__(self, name: str, limit: int):
        self.name, self.reads = name, 2 * MAX_ELEMENTS
        self.limit = self.left = min(limit, MAX_UNPACKED)

    def count(self, reads: int) -> None:
        self.reads -= reads
        if self.reads < 0:
            raise ScanError(
                "too-large",
                f"{self.name}: more than {MAX_ELEMENTS:,} data elements in its headers; "
                "upload one series alone, or convert it with dcm2niix",
            )

    def unpacked(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise ScanError(
                "too-large",
                f"{self.name}: unpacks to more than the limit of {self.limit:,} bytes; zip one series alone",
            )
        grow(size)

    def inflate(self, data: Data | memoryview) -> bytearray:
        """The whole of a bare deflate stream, as far as the limit goes."""
        inflater, whole, fed = zlib.decompressobj(-zlib.MAX_WBITS), bytearray(), 0
        rest: bytes | memoryview = b""
        while not inflater.eof:
            if not rest:
                rest = memoryview(data)[fed : fed + CHUNK]
                fed += len(rest)
            ending = not rest
            part = inflater.decompress(rest, CHUNK)
            rest = inflater.unconsumed_tail
            self.unpacked(len(part))
            whole += part
            if ending and not part:
                break
        return whole

    def parse(self, raw: Data | bytearray, filename: str = ".dcm") -> File | None:
        """The header and pixels in the bytes of a file, or None where it is no DICOM file."""
        last = filename.rsplit("/", 1)[-1]
        bare = raw[:2] in (b"\x08\x00", b"\x02\x00") and raw[3:4] == b"\x00"  # old files have no preamble
        bare = bare and (last.lower().endswith((".dcm", ".ima")) or "." not in last)
        if raw[128:132] != b"DICM" and not bare:
            return None
        try:
            return self._parse(raw, 132 if raw[128:132] == b"DICM" else 0)
        except ScanError:
            raise
        except (zlib.error, *ODD_HEADERS):
            return None

    def _parse(self, raw: Data | bytearray, start: int) -> File:
        stream = Counted(raw, self.count)
        stream.seek(start)
        meta = read_dataset(cast(BinaryIO, stream), False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
        syntax = uid.UID(str(meta.get("TransferSyntaxUID", "") or uid.ImplicitVRLittleEndian))
        if syntax == uid.DeflatedExplicitVRLittleEndian:
            raw, syntax = self.inflate(memoryview(raw)[stream.tell() :]), uid.ExplicitVRLittleEndian
            stream = Counted(raw, self.count)
        implicit = syntax.is_implicit_VR if syntax.is_transfer_syntax else False
        little = syntax.is_little_endian if syntax.is_transfer_syntax else True
        found: list[tuple[int, str | None, int]] = []

        def at_pixels(tag: int, vr: str | None, length: int) -> bool:
            if vr == "SQ" or length > CHUNK:  # parsed when it is asked for, out of sight of the count
                self.count((0 if length == UNDEFINED else length) // 16 if int(tag) in KEPT else 0)
            if int(tag) in PIXELS:
                found.append((int(tag), vr, length))
            return int(tag) >= 0x7FE00008

        header = read_dataset(cast(BinaryIO, stream), implicit, little, stop_when=at_pixels, specific_tags=KEPT)
        if not found or "Rows" not in header:
            return File(header, None)
        tag, vr, length = found[0]
        at = stream.tell() + (12 if vr in WIDE_HEADER else 8)
        end = len(raw) if length == UNDEFINED else at + length
        return File(header, Pixels(header, PIXELS[tag], syntax, memoryview(raw)[at:end], length == UNDEFINED))


def read_zip(data: Data, name: str, series: str | None, limit: int) -> Scan:
    files, others = unzip(data, name, limit)
    images = [file for file in files if file.pixels is not None]
    if not images:
        kinds = sorted({modality(file.header) or "?" for file in files})
        inside = (
            f"DICOM files without pictures ({', '.join(kinds[:SERIES_SHOWN])})"
            if files
            else (f"no DICOM file among its {others}" + (" files" if others != 1 else " file"))
        )
        raise ScanError(
            "no-image", f"{name}: {inside}; zip the folder of one DICOM series, or upload a .nii.gz by itself"
        )
    del files
    return volume_of(choose(images, name, series), name, limit)


def unzip(data: Data, name: str, limit: int) -> tuple[list[File], int]:
    """The DICOM files of a zip, and how many other files it holds."""
    files, others, reading = [], 0, Reading(name, limit)
    try:
        archive = zipfile.ZipFile(View(data))
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        check_entries(entries, name, reading.limit)
        for entry in entries:
            raw = bytearray()
            with archive.open(entry) as file:
                while part := file.read(CHUNK):
                    reading.unpacked(len(part))
                    raw += part
            parsed = reading.parse(raw, entry.filename)
            if parsed is None:
                others += 1
                reading.left += len(raw)
            else:
                files.append(parsed)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        if data[:4] == b"PK\x03\x04":
            raise ScanError("truncated", f"{name}: the zip is damaged or breaks off; zip it again") from error
        raise ScanError(
            "not-what-it-says",
            f"{name}: not a zip but {what(data)}; rename it by what it is, or zip the series again",
        ) from error
    except NotImplementedError as error:
        raise ScanError(
            "unknown-type",
            f"{name}: packed by a method that is not known here ({error}); zip it again with plain deflate",
        ) from error
    except ScanError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # each method of packing has errors of its own
        raise ScanError(
            "truncated",
            f"{name}: the zip cannot be unpacked ({type(error).__name__}); zip it again with plain deflate",
        ) from error
    return files, others


def check_entries(entries: list[zipfile.ZipInfo], name: str, limit: int) -> None:
    """A zip's own list of files, before anything is unpacked."""
    if not entries:
        raise ScanError("no-image", f"{name}: the zip holds no files; zip the folder of one DICOM series")
    if any(entry.flag_bits & 1 for entry in entries):
        raise ScanError("encrypted", f"{name}: the zip is protected by a password; zip it without one")
    for entry in entries:
        path = entry.filename.replace("\\", "/")
        if path.startswith("/") or re.match(r"[A-Za-z]:", path) or ".." in path.split("/"):
            raise ScanError(
                "unsafe-zip",
                f"{name}: one of its files has a path that climbs out of the zip; "
                "zip the folder of the series again",
            )
    size = sum(entry.file_size for entry in entries)
    if size > limit or len(entries) > MAX_FILES:
        raise ScanError(
            "too-large",
            f"{name}: {len(entries):,} files of {size:,} bytes, and the limit is "
            f"{MAX_FILES:,} files of {limit:,} bytes; zip one series alone",
        )


def modality(header: Dataset) -> str:
    return re.sub(r"[^A-Z0-9]", "", str(header.get("Modality", "")).upper())[:16]


def choose(images: list[File], name: str, series: str | None) -> list[File]:
    """The images of the one series, or of the one that was asked for by its number."""
    groups: dict[str, list[File]] = {}
    for file in images:
        groups.setdefault(str(file.header.get("SeriesInstanceUID", "")), []).append(file)
    if len(groups) == 1 and series is None:
        return images
    keyed: dict[str, list[File]] = {}
    taken: dict[str, int] = {}
    for group in groups.values():
        number = group[0].header.get("SeriesNumber")
        key = str(int(number)) if number is not None and str(number) else "0"
        taken[key] = taken.get(key, 0) + 1
        keyed[key if taken[key] == 1 else f"{key}-{taken[key]}"] = group
    if series in keyed:
        return keyed[series]
    ordered = sorted(keyed.items(), key=lambda item: (len(item[0]), item[0]))
    listed = "; ".join(
        f"{key}: {len(group)} images {rows_and_columns(group[0])} {modality(group[0].header)}".rstrip()
        for key, group in ordered[:SERIES_SHOWN]
    )
    listed += f"; and {len(ordered) - SERIES_SHOWN} more" if len(ordered) > SERIES_SHOWN else ""
    asked = f"no series {series[:16]} in it" if series is not None else f"{len(keyed)} series in it"
    raise ScanError("several-series", f"{name}: {asked} ({listed}); name one by its number, or zip one alone")


def rows_and_columns(file: File) -> str:
    return f"{file.pixels.rows}×{file.pixels.columns}" if file.pixels else "of no size"


def volume_of(files: list[File], name: str, limit: int) -> Scan:
    """The volume that the images of one series make up."""
    try:
        return assemble(
            [(file.header, file.pixels) for file in files if file.pixels], name, modality(files[0].header), limit
        )
    except ScanError:
        raise
    except ODD_HEADERS as error:
        raise ScanError(
            "bad-header",
            f"{name}: its images cannot be put together; convert them with dcm2niix and "
            f"upload the .nii.gz ({type(error).__name__})",
        ) from error


def read_dicom(data: Data, name: str, series: str | None, limit: int) -> Scan:
    """A single file: a volume of many frames, or one picture."""
    file = Reading(name, limit).parse(data)
    if file is None:
        raise ScanError(
            "not-what-it-says",
            f"{name}: not a DICOM file but {what(data)}, or a damaged one; rename "
            "it by what it is, or export it again",
        )
    if file.pixels is None:
        raise ScanError(
            "no-image",
            f"{name}: a DICOM file without a picture ({modality(file.header) or 'no modality'}"
            "); upload the images of the series",
        )
    if file.pixels.frames > 1:
        return volume_of([file], name, limit)
    pixels = file.pixels
    if pixels.rows * pixels.columns > MAX_PIXELS:
        raise ScanError(
            "too-large",
            f"{name}: {pixels.rows}×{pixels.columns} pixels, and the limit is {MAX_PIXELS:,}; scale it down",
        )
    grow(pixels.rows * pixels.columns * 16)
    try:
        picture = pixels.frame(0, name)
        if picture.ndim == 2:
            picture = brightness(picture, file.header)
    except ScanError:
        raise
    except ODD_HEADERS as error:
        raise ScanError(
            "truncated",
            f"{name}: its picture cannot be unpacked ({type(error).__name__}); copy or export it again",
        ) from error
    return image(picture, name, "DICOM", modality=modality(file.header))


def brightness(picture: np.ndarray, header: Any) -> np.ndarray:
    """A grey picture as it is meant to be seen, float32; a few rows at a time, as the tables work in float64."""
    shown = np.empty(picture.shape, np.float32)
    for start in range(0, len(picture), BAND):
        rows = slice(start, start + BAND)
        shown[rows] = apply_voi_lut(apply_modality_lut(picture[rows], header), header)
    if header.get("PhotometricInterpretation") == "MONOCHROME1":  # bright means less; turn it round
        np.subtract(shown.max() + shown.min(), shown, out=shown)
    return shown
