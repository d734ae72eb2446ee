"""Reading a scan: the one function that page, API, command line and training call, and the table of formats."""

import re
from pathlib import Path

from scans import dicom, nifti, pictures
from scans.scan import Reader, Scan, ScanError

LIMIT = 1 << 30  # bytes of a file, and of what it unpacks to
READERS: dict[str, Reader] = nifti.READERS | pictures.READERS | dicom.READERS  # by how a file's name ends


def safe_name(name: str) -> str:
    """The last part of a user's file name, of harmless characters only, to show back to that user."""
    last = re.split(r"[/\\]", name)[-1]
    return re.sub(r"[^\w.()+ -]", "_", last).strip(". ")[-80:] or "scan"


def read(file: str | Path | bytes, name: str | None = None, series: str | None = None, limit: int = LIMIT) -> Scan:
    """The scan in a file, or in bytes with a `name`, whose suffix tells the format. Refusals are `ScanError`.

    `series` names one DICOM series by its number where a zip holds several; `limit` bounds the bytes of the
    file and of what it unpacks to.
    """
    inside = isinstance(file, bytes | bytearray | memoryview)
    shown = safe_name(name or ("" if inside else Path(file).name))
    if not inside and not Path(file).is_file():
        raise ScanError("missing", f"{shown}: no such file; check the path")
    size = len(file) if inside else Path(file).stat().st_size
    if size == 0:
        raise ScanError("empty", f"{shown}: the file is empty (0 bytes); copy or export it again")
    suffix = next((s for s in READERS if shown.lower().endswith(s)), None)
    if suffix is None:
        raise ScanError(
            "unknown-type", f"{shown}: not a kind of file that is read here; use one of {', '.join(READERS)}"
        )
    if size > limit:
        raise ScanError(
            "too-large",
            f"{shown}: {size:,} bytes, and the limit is {limit:,}; crop the scan, or save it with 16-bit voxels",
        )
    return READERS[suffix](bytes(file) if inside else Path(file).read_bytes(), shown, series, limit)
