"""Reading a scan: the table of formats, and the one place where whatever goes wrong becomes a `ScanError`.

`read` does its work in this process; `scans.processes.read`, with the same arguments, in one that may die.
"""

import importlib
import re
import warnings
from pathlib import Path
from typing import TypeGuard, cast

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
    ".dcm": "scans.dicom.files:read_dicom",
}


def safe_name(name: str) -> str:
    """The last part of a user's file name, of harmless characters only, to show back to that user."""
    last = re.split(r"[/\\]", name)[-1]
    return re.sub(r"[^\w.()+ -]", "_", last).strip(". ")[-80:] or "scan"


def read(file: str | Path | bytes, name: str | None = None, series: str | None = None, limit: int = LIMIT) -> Scan:
    """The scan in a file, or in bytes with a `name`, whose suffix tells the format. Refusals are `ScanError`.

    `series` names one DICOM series by its number where a zip holds several; `limit` bounds the bytes of the
    file and of what it unpacks to.
    """
    shown = check(file, name, limit)
    try:
        data = Path(file).read_bytes() if isinstance(file, str | Path) else bytes(file)
    except OSError as error:
        raise ScanError("missing", f"{shown}: it cannot be opened ({error.strerror}); check its rights") from error
    return parse(data, shown, series, limit)


def in_memory(file: str | Path | bytes) -> TypeGuard[bytes]:
    return isinstance(file, bytes | bytearray | memoryview)


def suffix_of(name: str) -> str | None:
    return next((suffix for suffix in READERS if name.lower().endswith(suffix)), None)


def check(file: str | Path | bytes, name: str | None, limit: int) -> str:
    """What can be refused before a file is opened; the name to show for it."""
    path = Path(file) if isinstance(file, str | Path) else None
    shown = safe_name(name or (path.name if path else ""))
    if path and not path.is_file():
        raise ScanError("missing", f"{shown}: no such file; check the path")
    size = path.stat().st_size if path else len(cast(bytes, file))
    if size == 0:
        raise ScanError("empty", f"{shown}: the file is empty (0 bytes); copy or export it again")
    if suffix_of(shown) is None:
        raise ScanError(
            "unknown-type", f"{shown}: not a kind of file that is read here; use one of {', '.join(READERS)}"
        )
    if size > limit:
        raise ScanError(
            "too-large",
            f"{shown}: {size:,} bytes, and the limit is {limit:,}; crop the scan, or save it with 16-bit voxels",
        )
    return shown


def parse(data: Data, shown: str, series: str | None, limit: int) -> Scan:
    """The scan in a file's content. Libraries meet bytes here that nobody foresaw, and raise what they like."""
    module, function = READERS[suffix_of(shown) or ""].split(":")
    reader = getattr(importlib.import_module(module), function)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote header values, names among them
            return reader(data, shown, series, limit)
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
