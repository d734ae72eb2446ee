"""DICOM files: a zip of some series, or a single file, in; a `Scan` out. Where slices lie is `series`' part.

Everything is unpacked in memory, and counted: files, bytes, data elements, frames, pixels. Which series of several
is read, `choice` decides.
"""

import re
import struct
import zipfile
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from scans.dicom.choice import acquired, choose, coded, grouped, modality
from scans.dicom.headers import CHUNK, ODD_HEADERS, File, Reading
from scans.dicom.series import assemble
from scans.dicom.source import attributes
from scans.memory import grow
from scans.origin import Instance, Series, Source
from scans.scan import MAX_PIXELS, Data, Scan, ScanError, View, image, what

MAX_FILES = 20_000
SERIES_SHOWN = 20
MAX_DICTIONARY = 256 << 20  # bytes that LZMA may look back; packers take 64 MB at their best, some 256
BAND = 256  # rows of a picture whose brightness is worked out at once


def read_zip(data: Data, name: str, series: str | None, limit: int) -> Scan:
    return best_of(*unzip(data, name, limit), name, series, limit)


def best_of(files: list[File], others: int, name: str, series: str | None, limit: int) -> Scan:
    """The volume of the best series among these files, or of the one that is asked for."""
    groups = grouped((file, file) for file in files)
    if not groups:
        raise nothing_in_it(name, {str(file.header.get("Modality", "")) for file in files}, others)
    group, listed = choose(groups, name, series)
    members = group.places
    files.clear()
    del groups, group
    return volume_of(members, name, limit, listed)


def nothing_in_it(name: str, modalities: set[str], others: int) -> ScanError:
    """The refusal of what holds no DICOM image; `modalities` are those of its other DICOM files."""
    kinds = sorted({coded(kind) or "?" for kind in modalities})
    inside = (
        f"DICOM files without pictures ({', '.join(kinds[:SERIES_SHOWN])})"
        if kinds
        else f"no DICOM file among its {others} file{'s' * (others != 1)}"
    )
    return ScanError(
        "no-image", f"{name}: {inside}; zip the folder of one DICOM series, or upload a .nii.gz by itself"
    )


def unzip(data: Data, name: str, limit: int) -> tuple[list[File], int]:
    """The DICOM files of a zip, and how many other files it holds."""
    files, others, reading = [], 0, Reading(name, limit)
    try:
        archive = zipfile.ZipFile(View(data))
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        check_entries(entries, name, reading.limit)
        check_dictionaries(data, entries, name)
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


def check_dictionaries(data: Data, entries: list[zipfile.ZipInfo], name: str) -> None:
    """What LZMA takes to unpack the files of a zip: each says it in four bytes, and the decoder believes them."""
    largest = 0
    for entry in entries:
        if entry.compress_type == zipfile.ZIP_LZMA and entry.compress_size:
            names = struct.unpack_from("<2H", data, entry.header_offset + 26)
            start = entry.header_offset + 30 + sum(names)
            largest = max(largest, struct.unpack_from("<I", data, start + 5)[0])  # behind version and filters
    if largest > MAX_DICTIONARY:
        raise ScanError(
            "too-large",
            f"{name}: unpacking it takes a dictionary of {largest:,} bytes, and the limit is {MAX_DICTIONARY:,}; "
            "zip it again with plain deflate",
        )
    grow(largest)


def volume_of(files: list[File], name: str, limit: int, listed: tuple[Series, ...] = ()) -> Scan:
    """The volume that the images of one series make up."""
    files = without_copies(files)
    try:
        scan = assemble(
            [(file.header, file.pixels) for file in files if file.pixels], name, modality(files[0].header), limit
        )
    except ScanError as error:  # the others that lay with it can be asked for all the same
        raise ScanError(error.code, str(error), listed) from error
    except ODD_HEADERS as error:
        raise ScanError(
            "bad-header",
            f"{name}: its images cannot be put together; convert them with dcm2niix and "
            f"upload the .nii.gz ({type(error).__name__})",
            listed,
        ) from error
    instances = scan.source.instances if scan.source else ()
    return with_origin(scan, files[0], instances, listed)


def without_copies(files: list[File]) -> list[File]:
    """Each image once: folders are copied into one another, and then hold the same file twice."""
    kept: dict[str, list[File]] = {}
    found = []
    for file in files:
        same = kept.setdefault(str(file.header.get("SOPInstanceUID", "")), [])
        if not any(file.pixels and one.pixels and file.pixels.data == one.pixels.data for one in same):
            same.append(file)
            found.append(file)
    return found


def with_origin(scan: Scan, file: File, instances: tuple[Instance, ...], listed: tuple[Series, ...] = ()) -> Scan:
    """The scan with what the headers tell beside geometry."""
    source = Source(attributes(file.content) if file.content else {}, instances)
    return replace(scan, acquisition=acquired(file.header), series=listed, source=source)


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
    scan = image(picture, name, "DICOM", modality=modality(file.header))
    uid = str(file.header.get("SOPInstanceUID", ""))[:64]
    return with_origin(scan, file, (Instance(uid, 0, (0.0, 0.0, 0.0)),))


def brightness(picture: np.ndarray, header: Any) -> np.ndarray:
    """A grey picture as it is meant to be seen, float32; a few rows at a time, as the tables work in float64."""
    shown = np.empty(picture.shape, np.float32)
    for start in range(0, len(picture), BAND):
        rows = slice(start, start + BAND)
        shown[rows] = apply_voi_lut(apply_modality_lut(picture[rows], header), header)
    if header.get("PhotometricInterpretation") == "MONOCHROME1":  # bright means less; turn it round
        np.subtract(shown.max() + shown.min(), shown, out=shown)
    return shown
