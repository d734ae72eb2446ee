"""The label map of a diagnosis, numbered as FreeSurfer does, and its heat map: NIfTI files on the scan's own grid.

Each carries the scan's affine and nothing else of the scan's header, so that it lies over the scan in any viewer.
"""

import gzip
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diagnosis.anatomy.segment import on_scan
from diagnosis.diagnoser import Diagnosis
from diagnosis.maps.explain import Map
from scans.files import unused
from scans.prepare import restore
from scans.read import READERS

if TYPE_CHECKING:
    from nibabel import Nifti1Image

SUFFIX = "_labels.nii.gz"


def label_map(diagnosis: Diagnosis) -> bytes:
    """The label map of a measured scan, gzipped; ValueError for one that was not measured."""
    if diagnosis.segmentation is None:
        raise ValueError(f"{diagnosis.file}: nothing was outlined in it, so there is no label map to write")
    numbers = on_scan(diagnosis.segmentation, diagnosis.prepared, diagnosis.scan)
    image = image_of(numbers, diagnosis.scan.affine)
    image.header.set_intent("label", name="FreeSurfer")
    image.header["descrip"] = b"Scanwise labels; research use only"
    return gzipped(image)


def heat_map_file(heat_map: Map, diagnosis: Diagnosis) -> bytes:
    """A heat map on the scan's own grid, as a gzipped NIfTI file."""
    values = restore(heat_map.values, diagnosis.prepared, diagnosis.scan)
    image = image_of(values.astype(np.float32, copy=False), diagnosis.scan.affine)
    image.header["descrip"] = f"Scanwise {heat_map.method} for {heat_map.code}"[:79].encode()
    return gzipped(image)


def image_of(values: np.ndarray, affine: np.ndarray) -> "Nifti1Image":
    from nibabel import Nifti1Image  # here: it takes part of a second to open, and the server starts without it

    image = Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    return image


def gzipped(image: "Nifti1Image") -> bytes:
    """The image's file, the same bytes at any time."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=4, mtime=0) as packed:
        packed.write(image.to_bytes())
    return out.getvalue()


def write_labels(diagnosis: Diagnosis, folder: Path) -> Path:
    """The label map in a folder, named after the scan; a second scan of that name gets a number."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{unused(folder, stem(diagnosis.file), (SUFFIX,))}{SUFFIX}"
    path.write_bytes(label_map(diagnosis))
    return path


def stem(name: str) -> str:
    """A scan's name without its suffix."""
    suffix = max((end for end in READERS if name.lower().endswith(end)), key=len, default="")
    return name[: len(name) - len(suffix)] or "scan"
