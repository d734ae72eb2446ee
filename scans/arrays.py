"""Scans that are in memory already: a nibabel image, or voxels with their affine, for notebooks and pipelines.

They go through the reader of NIfTI files, so that what a file would be refused for they are refused for too.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from scans.read import LIMIT
from scans.scan import Scan, ScanError

NAME = "array.nii"
KEPT = ("uint8", "int16", "int32", "uint16", "float32", "float64")  # as NIfTI has them; others become float32


def is_array(given: Any) -> bool:
    """Whether this is what `from_array` takes."""
    if isinstance(given, tuple):
        return len(given) == 2
    if isinstance(given, str | Path | bytes | Scan):
        return False
    library = sys.modules.get("nibabel")  # who holds an image of its has opened it, and others need not
    images = getattr(library, "spatialimages", None)  # not there yet while another thread opens the library
    kind = getattr(images, "SpatialImage", None)
    return kind is not None and isinstance(given, kind)


def from_array(given: Any, name: str = NAME) -> Scan:
    """The scan in a nibabel image, or in a pair of voxels and affine (world mm, RAS)."""
    import nibabel

    from scans.nifti import read_nifti

    if isinstance(given, tuple):
        values, affine = np.asarray(given[0]), np.asarray(given[1], float)
    else:
        values, affine = np.asanyarray(given.dataobj), given.affine
    if values.dtype.kind not in "buif":
        raise ScanError("unreadable", f"{name}: voxels of type {values.dtype}; give whole or real numbers")
    if affine is None or affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise ScanError("unreadable", f"{name}: an affine has 4 × 4 finite numbers, from voxel to world mm")
    if values.nbytes > LIMIT:
        raise ScanError("too-large", f"{name}: {values.nbytes:,} bytes, and the limit is {LIMIT:,}; crop the scan")
    kept = values if values.dtype.name in KEPT else values.astype(np.uint8 if values.dtype == bool else np.float32)
    image = nibabel.Nifti1Image(kept, affine)
    image.set_sform(affine, code=1)
    return read_nifti(image.to_bytes(), name, None, LIMIT)
