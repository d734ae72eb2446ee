"""All DICOM objects of one diagnosis, and the ways they are handed over: files, one zip, one multipart body."""

import io
import secrets
import zipfile
from datetime import datetime
from pathlib import Path

import pydicom
from pydicom import Dataset

from archive.base import source_of
from archive.documents import capture, encapsulated_pdf
from archive.structured_report import structured_report
from archive.volumes import outlines, parametric_map, placed
from diagnosis.diagnoser import Diagnosis
from diagnosis.maps.explain import Map
from reports.files import unused


def results(
    diagnosis: Diagnosis, heat_map: Map | None, language: str = "en", at: datetime | None = None
) -> dict[str, Dataset]:
    """The objects by kind; ScanError where the scan came without a DICOM study.

    Heat map and outlines are left out where the source does not say in which frame of reference it lies, as a
    picture does not, and where there are none.
    """
    source_of(diagnosis)
    at = at or datetime.now()
    made = {
        "report": structured_report(diagnosis, at),
        "pdf": encapsulated_pdf(diagnosis, heat_map, language, at),
        "picture": capture(diagnosis, heat_map, at),
    }
    if placed(diagnosis):
        if heat_map is not None:
            made["map"] = parametric_map(diagnosis, heat_map, at)
        if diagnosis.segmentation is not None:
            made["outlines"] = outlines(diagnosis, at)
    return made


def to_bytes(made: Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, made, enforce_file_format=True)
    return buffer.getvalue()


def write(made: dict[str, Dataset], folder: Path, name: str) -> list[Path]:
    """The objects as files in a folder, named after the scan's cleaned name; none takes the place of another."""
    folder.mkdir(parents=True, exist_ok=True)
    free = unused(folder, name, tuple(f".{kind}.dcm" for kind in made))
    paths = [folder / f"{free}.{kind}.dcm" for kind in made]
    for path, one in zip(paths, made.values(), strict=True):
        path.write_bytes(to_bytes(one))
    return paths


def zipped(made: dict[str, Dataset]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
        for kind, one in made.items():
            archive.writestr(f"scanwise.{kind}.dcm", to_bytes(one))
    return buffer.getvalue()


def multipart(made: dict[str, Dataset]) -> tuple[str, bytes]:
    """The content type and the body by which DICOM PS3.18 hands over several instances."""
    boundary = f"scanwise-{secrets.token_hex(16)}"
    parts = [
        f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + to_bytes(one) + b"\r\n"
        for one in made.values()
    ]
    kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
    return kind, b"".join(parts) + f"--{boundary}--\r\n".encode()
