"""A small grey picture of the middle of each series, by which a person knows it."""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from scans.dicom.choice import grouped
from scans.dicom.files import unzip
from scans.dicom.folder import looked_through, members, untar
from scans.dicom.headers import ODD_HEADERS, File, Reading
from scans.folders.listing import Folder
from scans.memory import grow
from scans.scan import MAX_PIXELS, Data, ScanError

SIDE = 64  # pixels
MOST = 40  # series
ENDS = (1, 99.5)  # percentiles that are black and white


def thumbnails(data: Data | Folder, name: str, limit: int) -> dict[str, str]:
    """The pictures by the series' keys, as base64 of their grey bytes; a series that cannot be drawn has none."""
    load: Callable[[Any], File] = lambda file: file  # noqa: E731
    if isinstance(data, Folder):
        folder = data
        groups = grouped(looked_through(folder, name, limit, set()))
        load = lambda place: members(folder, [place], name, limit)[0]  # noqa: E731
    else:
        groups = grouped((file, file) for file in files_of(data, name, limit))
    found = {}
    for key, group in list(groups.items())[:MOST]:
        try:
            found[key] = base64.b64encode(small(load(group.middle), name).tobytes()).decode()
        except (ScanError, *ODD_HEADERS):  # its own refusal will tell, once it is read
            continue
    return found


def files_of(data: Data, name: str, limit: int) -> list[File]:
    if data[:4] == b"PK\x03\x04":
        return unzip(data, name, limit)[0]
    if data[128:132] == b"DICM":
        file = Reading(name, limit).parse(data)
        return [file] if file else []
    return untar(data, name, limit)[0]


def small(file: File, name: str) -> np.ndarray:
    """The middle frame of a file, (64, 64) grey, its sides' proportion kept."""
    pixels = file.pixels
    if pixels is None or pixels.rows * pixels.columns > MAX_PIXELS:
        raise ScanError("no-image", f"{name}: no picture of a size that can be shown")
    pixels.check(name)
    grow(pixels.rows * pixels.columns * 16)
    frame = pixels.frame(pixels.frames // 2, name).astype(np.float32)
    if frame.ndim == 3:
        frame = frame.mean(axis=2)
    low, high = np.percentile(frame, ENDS)
    grey = (np.clip((frame - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)
    scale = SIDE / max(grey.shape)
    rows, columns = (max(1, round(size * scale)) for size in grey.shape)
    shown = np.zeros((SIDE, SIDE), np.uint8)
    top, left = (SIDE - rows) // 2, (SIDE - columns) // 2
    fitted = Image.fromarray(grey).resize((columns, rows), Image.Resampling.BILINEAR)
    shown[top : top + rows, left : left + columns] = np.asarray(fitted)
    return shown
