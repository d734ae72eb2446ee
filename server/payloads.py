"""What a browser gets of a diagnosis: the volume and heat maps as small binaries, pictures and reports.

The viewer shows the scan on the prepared grid, its intensities brought to 0–255, its axes turned to RAS. A heat
map lies on that same grid, so that the two cannot slip against each other.

A binary is a little-endian uint32, the length of a JSON header padded to a multiple of four, that header, and
the bytes in C order (x, y, z), gzipped.
"""

import base64
import io
import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from diagnosis.anatomy.segment import NUMBERS, START
from diagnosis.diagnoser import Diagnoser, Diagnosis
from diagnosis.maps.explain import METHODS, Map
from diagnosis.maps.regions import regions, warnings
from reports.figures import slices
from reports.html import html
from reports.labels import label_map
from reports.style import HEAT, OUTLINES, strengths
from reports.wording import ranked_regions
from scans import affine
from scans.files import gzip
from scans.prepare import restore
from studies import to_json

REPORTS = {"html": "text/html; charset=UTF-8", "pdf": "application/pdf", "labels": "application/gzip"}
ACCEPTED = {
    "application/json": "json",
    "*/*": "json",
    "text/html": "html",
    "application/pdf": "pdf",
    "application/gzip": "labels",
    "application/dicom": "dicom",
    "multipart/related": "dicom",
    "application/zip": "dicom.zip",
}


def methods() -> tuple[str, ...]:
    return tuple(METHODS)


def wanted(accept: str) -> str:
    """The kind of answer that an Accept header asks for first, one of ACCEPTED's; JSON where it names none."""
    kinds = (part.split(";")[0].strip().lower() for part in accept.split(","))
    return next((ACCEPTED[kind] for kind in kinds if kind in ACCEPTED), "json")


def pack(header: dict[str, Any], values: np.ndarray) -> bytes:
    text = to_json(header).encode()
    text += b" " * (-len(text) % 4)
    return gzip.compress(struct.pack("<I", len(text)) + text + values.tobytes(), compresslevel=1)


def upright(values: np.ndarray, diagnosis: Diagnosis) -> np.ndarray:
    """Values on the study's grid, turned so that the axes run right, front, up; images lie as (x, y, 1)."""
    if diagnosis.scan.kind == "image":
        return values.T[:, ::-1, None]  # rows run down the picture, y runs up it
    return affine.upright(values, diagnosis.prepared.affine)


def spacing(diagnosis: Diagnosis) -> list[float]:
    if diagnosis.scan.kind == "image":
        return [1.0, 1.0, 1.0]
    matrix = diagnosis.prepared.affine
    sizes = np.linalg.norm(matrix[:3, :3], axis=0)
    return [round(float(sizes[axis]), 4) for axis in affine.axes(matrix)]


def volume(diagnosis: Diagnosis) -> bytes:
    """The prepared grid for the viewer; black is no signal, white the brightest of the foreground."""
    low, high = diagnosis.prepared.window(HEAT.white)
    scaled = (diagnosis.prepared.grey - low).mul_(255 / max(high - low, 1e-6)).clamp_(0, 255).byte().numpy()
    seen = upright(scaled, diagnosis)
    return pack(
        {
            "kind": diagnosis.scan.kind,
            "shape": seen.shape,
            "spacing": spacing(diagnosis),
            "oriented": diagnosis.scan.kind == "volume" and "no-affine" not in diagnosis.prepared.notes,
        },
        np.ascontiguousarray(seen),
    )


def heat(diagnosis: Diagnosis, heat_map: Map) -> bytes:
    """The map's strengths as 0–255, on the grid that `volume` shows, and the regions in which it lies."""
    seen = upright((255 * strengths(heat_map)).astype(np.uint8), diagnosis)
    shares = regions(heat_map, diagnosis.prepared, diagnosis.weights.contract)
    header = {"shape": seen.shape, "method": heat_map.method, "code": heat_map.code}
    header |= {"regions": ranked_regions(shares), "warnings": warnings(heat_map, shares)}
    return pack(header, np.ascontiguousarray(seen))


def outlines(diagnosis: Diagnosis) -> bytes:
    """What was outlined, in FreeSurfer's numbers: the part of the grid of `volume` that holds any of it."""
    found = diagnosis.segmentation
    if found is None:
        raise ValueError(f"{diagnosis.file}: nothing was outlined in it")
    whole = np.zeros(diagnosis.prepared.grey.shape, np.uint8)
    whole[tuple(slice(a, a + n) for a, n in zip(START, found.classes.shape, strict=True))] = found.numbers
    seen = upright(whole, diagnosis)
    held = [np.flatnonzero(seen.any(tuple(other for other in range(3) if other != axis))) for axis in range(3)]
    box = [slice(int(side[0]), int(side[-1]) + 1) if len(side) else slice(0, 1) for side in held]
    part = np.ascontiguousarray(seen[tuple(box)])
    structures = [{"name": name, "numbers": NUMBERS[name], "colour": colour} for name, colour in OUTLINES.items()]
    start = [side.start for side in box]
    return pack({"start": start, "shape": part.shape, "structures": structures}, part)


def heat_nifti(diagnosis: Diagnosis, heat_map: Map) -> bytes:
    """The map on the scan's own voxels, for any viewer that reads NIfTI."""
    import nibabel  # here: it takes part of a second to open, and few ask for this file

    values = restore(heat_map.values, diagnosis.prepared, diagnosis.scan)
    place = diagnosis.scan.affine if diagnosis.scan.kind == "volume" else np.eye(4)
    image = nibabel.Nifti1Image(values.astype(np.float32, copy=False), place)
    image.header["descrip"] = f"Scanwise {heat_map.method} {heat_map.code}; research use only".encode()
    return gzip.compress(image.to_bytes(), compresslevel=3)


def heat_png(diagnosis: Diagnosis, heat_map: Map) -> bytes:
    return slices(diagnosis, heat_map)


MAPS: dict[str, Callable[[Diagnosis, Any], bytes]] = {"": heat, "nii.gz": heat_nifti, "png": heat_png}


def picture(grey: bytes) -> str:
    """A square of grey bytes as an address that a page can show."""
    side = math.isqrt(len(grey))
    out = io.BytesIO()
    Image.frombytes("L", (side, side), grey).save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def report(diagnoser: Diagnoser, diagnosis: Diagnosis, kind: str, language: str) -> bytes:
    """The report with the quickest map of the predicted class, where there is one; or the label map."""
    if kind == "labels":
        return label_map(diagnosis)
    heat_map = diagnoser.explain(diagnosis, methods()[0]) if diagnosis.label else None
    if kind == "pdf":
        from reports.pdf import (
            pdf,  # here: what draws it takes long to open, and most servers' starts need not wait
        )

        return pdf(diagnosis, heat_map, language)
    return html(diagnosis, heat_map, language).encode()


def dicom(diagnoser: Diagnoser, diagnosis: Diagnosis, kind: str, language: str) -> tuple[str, bytes]:
    """Content type and body of the results as DICOM: the parts of PS3.18, or a zip of files.

    ScanError where the scan came without a DICOM study.
    """
    from archive import results  # here: highdicom takes a second to open

    heat_map = diagnoser.explain(diagnosis, methods()[0]) if diagnosis.label else None
    made = results.results(diagnosis, heat_map, language)
    return ("application/zip", results.zipped(made)) if kind == "dicom.zip" else results.multipart(made)


def handed_over(diagnoser: Diagnoser, diagnosis: Diagnosis, kind: str, language: str) -> tuple[str, bytes]:
    """Content type and body of whatever the API gives instead of JSON."""
    if kind.startswith("dicom"):
        return dicom(diagnoser, diagnosis, kind, language)
    return REPORTS[kind], report(diagnoser, diagnosis, kind, language)
