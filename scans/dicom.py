"""DICOM files: a zip of one series, or a single file, in; a `Scan` out. Geometry is dicom2nifti's.

Files are unpacked in memory. Of their headers only what geometry and pixels need is used, and of their text
only the modality is kept; the list of series in a refusal speaks in numbers.
"""

import logging
import re
import struct
import threading
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from scans.scan import MAX_PIXELS, Reader, Scan, ScanError, dims, image, usable, volume, what

MAX_FILES = 20_000
LOCK = threading.Lock()  # dicom2nifti is configured by globals, and so are warnings

# what dicom2nifti answers -> our code and words
REFUSALS = {
    "SLICE_INCREMENT_INCONSISTENT": (
        "uneven-slices",
        "the slices are not evenly spaced, or some are missing; export the whole series again",
    ),
    "NON_CUBICAL_IMAGE/GANTRY_TILT": (
        "gantry-tilt",
        "the slices are shifted against one another (tilted gantry); upload a series that is not tilted",
    ),
    "IMAGE_ORIENTATION_INCONSISTENT": (
        "several-series",
        "the images lie in different planes, as in a localizer; upload one series alone",
    ),
    "TOO_FEW_SLICES/LOCALIZER": ("too-few-slices", "fewer than 4 images of one volume; upload all"),
    "NON_IMAGING_DICOM_FILES": ("no-image", "its images have no place in space; upload the original"),
    "NOT_A_VOLUME": ("too-few-slices", "the images do not make up a volume; upload the whole series"),
    "MISSING_DICOM_FILES": ("uneven-slices", "some images are missing; export the whole series again"),
}
UNKNOWN = ("bad-header", "its images cannot be put together; convert them with dcm2niix and upload the .nii.gz")
ODD_HEADERS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


@contextmanager
def guarded(name: str) -> Iterator[None]:
    """One DICOM file or zip at a time; what its headers make pydicom stumble over becomes a refusal.

    Warnings are dropped because they quote header values, names among them.
    """
    with LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except ScanError:
            raise
        except ODD_HEADERS as error:
            raise ScanError(UNKNOWN[0], f"{name}: {UNKNOWN[1]} ({type(error).__name__})") from error


def read_zip(data: bytes, name: str, series: str | None, limit: int) -> Scan:
    with guarded(name):
        return from_zip(data, name, series, limit)


def from_zip(data: bytes, name: str, series: str | None, limit: int) -> Scan:
    datasets, others = unzip(data, name, limit)
    images = [d for d in datasets if "PixelData" in d and "Rows" in d]
    if not images:
        kinds = sorted({str(d.get("Modality", "?"))[:16] for d in datasets})
        inside = (
            f"DICOM files without pictures ({', '.join(kinds)})"
            if datasets
            else (f"no DICOM file among its {others}" + (" files" if others != 1 else " file"))
        )
        raise ScanError(
            "no-image", f"{name}: {inside}; zip the folder of one DICOM series, or upload a .nii.gz by itself"
        )
    return convert(choose(images, name, series), name, limit)


def unzip(data: bytes, name: str, limit: int) -> tuple[list[pydicom.Dataset], int]:
    """The DICOM files of a zip, and how many other files it holds."""
    datasets, others, left = [], 0, limit
    try:
        archive = zipfile.ZipFile(BytesIO(data))
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        check_entries(entries, name, limit)
        for entry in entries:
            with archive.open(entry) as file:
                raw = file.read(left + 1)
            left -= len(raw)
            if left < 0:
                raise ScanError(
                    "too-large", f"{name}: unpacks to more than the limit of {limit:,} bytes; zip one series alone"
                )
            dataset = parse(raw, entry.filename)
            if dataset is None:
                others += 1
            else:
                datasets.append(dataset)
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
    return datasets, others


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


def parse(raw: bytes, filename: str = ".dcm") -> pydicom.Dataset | None:
    """The data set in the bytes of a file, or None where it is no DICOM file."""
    last = filename.rsplit("/", 1)[-1]
    bare = raw[:2] in (b"\x08\x00", b"\x02\x00") and raw[3:4] == b"\x00"  # old files have no preamble
    bare = bare and (last.lower().endswith((".dcm", ".ima")) or "." not in last)
    if raw[128:132] != b"DICM" and not bare:
        return None
    try:
        return pydicom.dcmread(BytesIO(raw), force=bare)
    except (InvalidDicomError, OSError, zlib.error, *ODD_HEADERS):
        return None


def choose(images: list[pydicom.Dataset], name: str, series: str | None) -> list[pydicom.Dataset]:
    """The images of the one series, or of the one that was asked for by its number."""
    groups: dict[str, list[pydicom.Dataset]] = {}
    for dataset in images:
        groups.setdefault(str(dataset.get("SeriesInstanceUID", "")), []).append(dataset)
    if len(groups) == 1 and series is None:
        return images
    keyed: dict[str, list[pydicom.Dataset]] = {}
    for group in groups.values():
        number = group[0].get("SeriesNumber")
        key = str(int(number)) if number is not None and str(number) else "0"
        while key in keyed:
            key += "b"
        keyed[key] = group
    if series in keyed:
        return keyed[series]
    listed = "; ".join(
        f"{key}: {len(group)} images {group[0].get('Rows')}×{group[0].get('Columns')} "
        f"{str(group[0].get('Modality', ''))[:16]}".rstrip()
        for key, group in sorted(keyed.items(), key=lambda item: (len(item[0]), item[0]))
    )
    asked = f"no series {series[:16]} in it" if series is not None else f"{len(keyed)} series in it"
    raise ScanError("several-series", f"{name}: {asked} ({listed}); name one by its number, or zip one alone")


def convert(datasets: list[pydicom.Dataset], name: str, limit: int) -> Scan:
    """The volume that the images of one series make up."""
    first = datasets[0]
    modality = str(first.get("Modality", ""))[:16]
    size = sum(
        int(d.get("Rows") or 0)
        * int(d.get("Columns") or 0)
        * int(d.get("NumberOfFrames") or 1)
        * (int(d.get("BitsAllocated") or 16) // 8 or 1)
        for d in datasets
    )
    if size > limit:
        raise ScanError(
            "too-large",
            f"{name}: its images unpack to {size:,} bytes, and the limit is {limit:,}; upload a smaller series",
        )
    if int(first.get("SamplesPerPixel") or 1) > 1:
        raise ScanError("rgb", f"{name}: colour images; upload the original series, with one number a pixel")
    picture = assemble([one_time(dataset) for dataset in datasets], name, modality, limit)
    voxels = np.asarray(picture.dataobj)
    if voxels.ndim > 3 and max(voxels.shape[3:]) > 1:
        raise ScanError(
            "several-volumes", f"{name}: {voxels.shape[3]} volumes ({dims(voxels.shape)}); upload one 3-D volume"
        )
    if voxels.ndim < 3 or min(voxels.shape[:3]) < 2:
        raise ScanError("too-few-slices", f"{name}: {dims(voxels.shape)} voxels; upload the whole series")
    known = usable(picture.affine)
    return volume(
        voxels.reshape(voxels.shape[:3]),
        picture.affine if known else np.eye(4),
        name,
        "DICOM",
        known,
        modality=modality,
    )


def assemble(datasets: list[pydicom.Dataset], name: str, modality: str, limit: int) -> Any:
    """The nibabel image that dicom2nifti makes of one series, or its refusal in our words."""
    from dicom2nifti import convert_dicom, convert_generic, settings  # slow to import, and only DICOM needs it
    from dicom2nifti.exceptions import ConversionError, ConversionValidationError

    logging.getLogger("dicom2nifti").setLevel(logging.CRITICAL)  # its complaints become our refusals
    settings.validate_orthogonal = False  # a tilted gantry gives a sheared affine, and `prepare` honours it
    settings.validate_slice_increment, settings.resample = True, False
    try:
        try:
            return convert_dicom.dicom_array_to_nifti(list(datasets), None, reorient_nifti=False)["NII"]
        except ConversionValidationError as error:
            uneven = str(error) == "SLICE_INCREMENT_INCONSISTENT"
            if not uneven or modality != "CT" or even_bytes(datasets) > limit:
                raise
        settings.validate_slice_increment, settings.resample = False, True
        settings.resample_padding = int(min(0, float(datasets[0].get("RescaleIntercept") or 0)))  # as air
        return convert_generic.dicom_to_nifti(list(datasets), None)["NII"]  # CT changes its step on purpose
    except (ConversionError, ConversionValidationError) as error:
        code, words = REFUSALS.get(str(error), UNKNOWN)
        raise ScanError(code, f"{name}: {words}") from error


def even_bytes(datasets: list[pydicom.Dataset]) -> float:
    """At most how many bytes a series takes once dicom2nifti has evened out its steps, to one near the least."""
    corners = np.array([dataset.ImagePositionPatient for dataset in datasets], float)  # (n, 3)
    steps = np.linalg.norm(np.diff(corners[np.lexsort(corners.T)], axis=0), axis=1)
    pixel = np.array(datasets[0].PixelSpacing, float)
    extent = np.ptp(corners, axis=0).max() + max(datasets[0].Rows, datasets[0].Columns) * pixel.max()
    return 8 * extent**3 / (pixel.prod() * np.percentile(steps[steps > 0], 15))


def one_time(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """A multi-frame file's counters, counted from 1 where only one value occurs.

    A single volume of a longer series may call itself the third, and would be filed behind two empty ones.
    """
    frames = [
        frame.FrameContentSequence[0]
        for frame in dataset.get("PerFrameFunctionalGroupsSequence", [])
        if "FrameContentSequence" in frame
    ]
    times = {frame.get("TemporalPositionIndex") for frame in frames}
    if len(times) == 1 and None not in times:
        for frame in frames:
            frame.TemporalPositionIndex = 1
    indices = [frame.get("DimensionIndexValues") for frame in frames]
    if indices and all(isinstance(index, list | MultiValue) for index in indices):
        fixed = [len(set(values)) == 1 for values in zip(*indices, strict=False)]
        for frame, index in zip(frames, indices, strict=True):
            frame.DimensionIndexValues = [1 if same else v for v, same in zip(index, fixed, strict=False)]
    return dataset


def read_dicom(data: bytes, name: str, series: str | None, limit: int) -> Scan:
    with guarded(name):
        return from_file(data, name, limit)


def from_file(data: bytes, name: str, limit: int) -> Scan:
    """A single file: a volume of many frames, or one picture."""
    dataset = parse(data)
    if dataset is None:
        raise ScanError(
            "not-what-it-says",
            f"{name}: not a DICOM file but {what(data)}; rename it by what it is, or export it again",
        )
    modality = str(dataset.get("Modality", ""))[:16]
    if "PixelData" not in dataset or "Rows" not in dataset:
        raise ScanError(
            "no-image",
            f"{name}: a DICOM file without a picture ({modality or 'no modality'}); "
            "upload the images of the series",
        )
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        return convert([dataset], name, limit)
    if int(dataset.Rows) * int(dataset.Columns) > MAX_PIXELS:
        raise ScanError(
            "too-large",
            f"{name}: {dataset.Rows}×{dataset.Columns} pixels, and the limit is {MAX_PIXELS:,}; scale it down",
        )
    try:
        pixels = dataset.pixel_array
        if pixels.ndim == 2:
            pixels = apply_voi_lut(apply_modality_lut(pixels, dataset), dataset).astype(np.float32)
            if dataset.get("PhotometricInterpretation") == "MONOCHROME1":  # bright means less; turn it round
                pixels = pixels.max() + pixels.min() - pixels
    except ODD_HEADERS as error:
        raise ScanError(
            "truncated",
            f"{name}: its picture cannot be unpacked ({type(error).__name__}); copy or export it again",
        ) from error
    return image(pixels, name, "DICOM", modality=modality)


READERS: dict[str, Reader] = {".zip": read_zip, ".dcm": read_dicom}
