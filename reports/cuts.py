"""Three coronal cuts through the hippocampi with what was outlined in them, as one picture.

A line runs where a structure's probability falls below one half, between the voxels, so that it is as smooth as
what was measured; it is one pixel wide and hides nothing.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor, ImageDraw
from scipy import ndimage

from diagnosis.anatomy.segment import START, Segmentation
from diagnosis.diagnoser import Diagnosis
from diagnosis.maps.explain import Map
from reports.figures import WIDTH, letters, picture, planes, png
from reports.style import HEAT, OUTLINES

OUTLINED = ("lateral", "third", "inferior_horn", "hippocampus")  # the others would hide the picture
SHARES = (0.85, 0.5, 0.15)  # of the hippocampi, how much lies behind each cut: head, body and tail
MARGIN = 4  # voxels shown around what was outlined
LINE = 2  # pixels


@dataclass(frozen=True, eq=False)
class Cut:
    """One coronal plane: rows from the top down, the patient's right on the left."""

    grey: np.ndarray  # (rows, columns), 0 to 1
    chances: dict[str, np.ndarray]  # of each structure in OUTLINED: (rows, columns), 0 to 1
    voxel: tuple[float, float]  # width and height, mm
    ahead: float  # mm in front of the middle of the hippocampi


def coronal_cuts(diagnosis: Diagnosis) -> list[Cut]:
    """The cuts from front to back; none where nothing was outlined."""
    found = diagnosis.segmentation
    if found is None:
        return []
    box = tuple(slice(a, a + n) for a, n in zip(START, found.classes.shape, strict=True))
    places = _places(found)
    frame = _frame(found, places)
    low, high = diagnosis.prepared.window(HEAT.white)
    shown = diagnosis.prepared.grey[box][:, places]  # (X, cuts, Z)
    grey = ((shown - low) / max(high - low, 1e-6)).clamp(0, 1).numpy()
    chances = {name: found.probability(name)[:, places].numpy() for name in OUTLINED}  # one whole box at a time
    width, depth, height = found.spacing
    return [
        Cut(
            _seen(grey, number, frame),
            {name: _seen(chance, number, frame) for name, chance in chances.items()},
            (width, height),
            depth * (place - places[1]),
        )
        for number, place in enumerate(places)
    ]


def _places(found: Segmentation) -> list[int]:
    """Where along the box to cut: through the hippocampi, or through all that there is where none were found."""
    along = found.probability("hippocampus").sum((0, 2)).numpy()
    along = along if along.sum() > 0 else (found.classes > 0).sum((0, 2))
    behind = np.cumsum(along) / max(float(along.sum()), 1e-6)  # rising from 0 to 1
    return [int((behind[:-1] < share).sum()) for share in SHARES]


def _frame(found: Segmentation, places: list[int]) -> tuple[slice, slice]:
    """What part of the planes holds anything outlined, from left to right and from below to above."""
    seen = np.any(found.classes[:, places] > 0, axis=1)  # (X, Z)
    seen = seen if np.any(seen) else ~seen
    return _held(np.any(seen, axis=1)), _held(np.any(seen, axis=0))


def _held(planes: np.ndarray) -> slice:
    held = np.flatnonzero(planes)
    return slice(max(0, int(held[0]) - MARGIN), min(len(planes), int(held[-1]) + MARGIN + 1))


def _seen(values: np.ndarray, number: int, frame: tuple[slice, slice]) -> np.ndarray:
    """One of the planes (X, cuts, Z), as it is drawn."""
    return values[frame[0], number, frame[1]].T[::-1, ::-1]


def cuts_picture(cuts: list[Cut]) -> Image.Image:
    """The cuts side by side, from front to back, to one scale."""
    sizes = [(cut.grey.shape[1] * cut.voxel[0], cut.grey.shape[0] * cut.voxel[1]) for cut in cuts]  # mm
    scale = WIDTH / sum(width for width, _ in sizes)  # pixels a mm
    canvas = Image.new("RGB", (WIDTH, round(scale * max(height for _, height in sizes))))
    left = 0.0
    for cut, (width, height) in zip(cuts, sizes, strict=True):
        canvas.paste(_drawn(cut, round(scale * width), round(scale * height)), (round(left), 0))
        left += scale * width
    return canvas


def _drawn(cut: Cut, width: int, height: int) -> Image.Image:
    def enlarged(values: np.ndarray) -> np.ndarray:
        plane = Image.fromarray(np.ascontiguousarray(values, np.float32))
        return np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC))

    pixels = np.repeat(np.rint(255 * enlarged(cut.grey).clip(0, 1)).astype(np.uint8)[..., None], 3, -1)
    for name, chance in cut.chances.items():
        inside = enlarged(chance) > 0.5
        pixels[inside & ~ndimage.binary_erosion(inside, iterations=LINE)] = ImageColor.getrgb(OUTLINES[name])
    drawn = Image.fromarray(pixels)
    pen = ImageDraw.Draw(drawn)
    for at, letter, anchor in ((8, "R", "lm"), (width - 8, "L", "rm")):
        pen.text((at, height / 2), letter, fill="white", font=letters(), anchor=anchor)
    return drawn


def overview(diagnosis: Diagnosis, heat_map: Map | None) -> Image.Image:
    """The report's first picture: three planes, under the map where there is one, above the coronal cuts."""
    rows = [picture(planes(diagnosis, heat_map), brief=True)]
    cuts = coronal_cuts(diagnosis)
    rows += [cuts_picture(cuts)] if cuts else []
    canvas = Image.new("RGB", (WIDTH, sum(row.height for row in rows)))
    for number, row in enumerate(rows):
        canvas.paste(row, (0, sum(above.height for above in rows[:number])))
    return canvas


def cuts_png(diagnosis: Diagnosis) -> bytes | None:
    """The picture as a PNG; None where nothing was outlined."""
    cuts = coronal_cuts(diagnosis)
    return png(cuts_picture(cuts)) if cuts else None
