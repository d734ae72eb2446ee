"""Reading a scan: the table of formats, and the one place where whatever goes wrong becomes a `ScanError`.

`read` does its work in this process; `scans.processes.read`, with the same arguments, in one that may die.
"""

import importlib
import re
import warnings
from pathlib import Path
from typing import Any, TypeGuard, cast

from scans.folders.listing import Folder, listing
from scans.scan import Data, Scan, ScanError

LIMIT = 1 << 30  # bytes of a file, and of what it unpacks to

# how a picture's name may end
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
# how a file's name ends -> the module and function that read it, imported by whoever does read one
READERS = {
    ".nii": "scans.nifti:read_nifti",
    ".nii.gz": "scans.nifti:read_nifti",
    ".mgz": "scans.nifti:read_mgh",
    ".mgh": "scans.nifti:read_mgh",
    **dict.fromkeys(IMAGES, "scans.pictures:read_picture"),
    ".zip": "scans.dicom.files:read_zip",
    ".tar": "scans.dicom.folder:read_tar",
    ".dcm": "scans.dicom.files:read_dicom",
}
FOLDER, SURVEY = "scans.dicom.folder:read_folder", "scans.dicom.folder:survey"
THUMBNAILS = "scans.dicom.thumbnails:thumbnails"
APART = tuple(suffix for suffix in READERS if suffix != ".dcm")  # files that are scans by themselves, in a folder


def safe_name(name: str) -> str:
    """The last part of a user's file name, of harmless characters only, to show back to that user."""
    last = re.split(r"[/\\]", name)[-1]
    return re.sub(r"[^\w.()+ -]", "_", last).strip(". ")[-80:] or "scan"


def read(file: str | Path | bytes, name: str | None = None, series: str | None = None, limit: int = LIMIT) -> Scan:
    """The scan in a file, in a folder of DICOM files, or in bytes with a `name`. Refusals are `ScanError`.

    A suffix tells a file's format. `series` names one DICOM series by its number where several lie together;
    `limit` bounds the bytes of the file and of what it unpacks to.
    """
    shown = check(file, name, limit)
    if is_folder(file):
        return parse(
            Folder(Path(cast(str, file)), listing(Path(cast(str, file)), shown, APART)), shown, series, limit
        )
    try:
        data = Path(file).read_bytes() if isinstance(file, str | Path) else bytes(file)
    except OSError as error:
        raise ScanError("missing", f"{shown}: it cannot be opened ({error.strerror}); check its rights") from error
    return parse(data, shown, series, limit)


def in_memory(file: str | Path | bytes) -> TypeGuard[bytes]:
    return isinstance(file, bytes | bytearray | memoryview)


def is_folder(file: str | Path | bytes) -> bool:
    return isinstance(file, str | Path) and Path(file).is_dir()


def begins_as_dicom(path: Path) -> bool:
    """DICOM files are known by their beginning, whatever they are called."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def name_of(name: str, series: str) -> str:
    """What the answer to one series is called, where a file of that name holds scans of several people."""
    suffix = suffix_of(name) or ""
    return f"{name[: len(name) - len(suffix)]} (series {series}){name[len(name) - len(suffix) :]}"


def suffix_of(name: str) -> str | None:
    return next((suffix for suffix in READERS if name.lower().endswith(suffix)), None)


def check(file: str | Path | bytes, name: str | None, limit: int) -> str:
    """What can be refused before a file is opened; the name to show for it."""
    path = Path(file) if isinstance(file, str | Path) else None
    shown = safe_name(name or (path.name or path.resolve().name if path else ""))
    if path and path.is_dir():
        return shown
    if path and not path.is_file():
        raise ScanError("missing", f"{shown}: no such file or folder; check the path")
    size = path.stat().st_size if path else len(cast(bytes, file))
    if size == 0:
        raise ScanError("empty", f"{shown}: the file is empty (0 bytes); copy or export it again")
    if suffix_of(shown) is None and not (path and begins_as_dicom(path)):
        raise ScanError(
            "unknown-type", f"{shown}: not a kind of file that is read here; use one of {', '.join(READERS)}"
        )
    if size > limit:
        raise ScanError(
            "too-large",
            f"{shown}: {size:,} bytes, and the limit is {limit:,}; crop the scan, or save it with 16-bit voxels",
        )
    return shown


def parse(data: Data | Folder, shown: str, series: str | None, limit: int) -> Scan:
    """The scan in a file's or a folder's content."""
    known = FOLDER if isinstance(data, Folder) else READERS[suffix_of(shown) or ".dcm"]
    return guarded(known, shown, data, shown, series, limit)


def guarded(known: str, shown: str, *given: Any) -> Any:
    """What a reader makes of bytes that nobody foresaw; the libraries that meet them raise what they like."""
    module, function = known.split(":")
    reader = getattr(importlib.import_module(module), function)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote header values, names among them
            return reader(*given)
    except ScanError:
        raise
    except MemoryError as error:
        raise ScanError(
            "too-much-memory",
            f"{shown}: reading it takes more memory than a scan of the size that "
            "it declares may; export the scan again",
        ) from error
    except Exception as error:
        raise ScanError(
            "unreadable",
            f"{shown}: its contents cannot be made out ({type(error).__name__}); export "
            "the scan again, or convert it to .nii.gz",
        ) from error
