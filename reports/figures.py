"""The scan of a `Diagnosis` in three planes, with and without its heat map, as one picture."""

import io
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diagnosis.diagnoser import Diagnosis
from diagnosis.maps.explain import Map
from reports.style import HEAT, strengths
from scans import affine

MARGIN = 8  # voxels shown around the head
WIDTH = 1000  # pixels of the whole picture


@dataclass(frozen=True, eq=False)
class Plane:
    """One cut through the scan, ready to be shown: row 0 on top."""

    grey: np.ndarray  # (rows, columns), 0 to 1
    strength: np.ndarray | None  # of the heat map: (rows, columns), 0 to 1
    voxel: tuple[float, float]  # width and height, mm (of an image: 1)
    sides: tuple[str, str]  # letters at the left and right edge

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, mm."""
        return self.grey.shape[1] * self.voxel[0], self.grey.shape[0] * self.voxel[1]


def planes(diagnosis: Diagnosis, heat_map: Map | None) -> list[Plane]:
    """Axial, coronal and sagittal planes through where the map is strongest, else through the middle."""
    prepared = diagnosis.prepared
    low, high = prepared.window(HEAT.white)
    grey = prepared.grey.numpy()  # (X, Y, Z) or (H, W)

    def shown(plane: np.ndarray) -> np.ndarray:
        return np.clip((plane - low) / max(high - low, 1e-6), 0, 1)

    strength = None if heat_map is None else strengths(heat_map)
    if diagnosis.weights.study.contract.kind == "image":
        return [Plane(shown(grey), strength, (1.0, 1.0), ("", ""))]
    inside = prepared.foreground.numpy()
    inside = inside if inside.any() else np.ones_like(inside)
    spacing = np.linalg.norm(prepared.affine[:3, :3], axis=0)[affine.axes(prepared.affine)]
    grey, inside = (affine.upright(part, prepared.affine) for part in (grey, inside))
    strength = None if strength is None else affine.upright(strength, prepared.affine)
    box = [_occupied(inside, axis) for axis in range(3)]
    cuts = tuple((side.start + side.stop) // 2 for side in box)
    if strength is not None:
        within = strength * inside
        peak = np.unravel_index(int(within.argmax()), within.shape)
        cuts = peak if within[peak] > 0 else cuts
    known = "no-affine" not in prepared.notes
    views = []
    for axis, letters in ((2, "RL"), (1, "RL"), (0, "AP")):
        place: tuple[int | slice, ...] = (*box[:axis], int(cuts[axis]), *box[axis + 1 :])
        # (first, second) axis → rows from the top down, columns mirrored: right and front lie on the left
        plane = grey[place].T[::-1, ::-1]
        heat = None if strength is None else strength[place].T[::-1, ::-1]
        across, up = (n for n in range(3) if n != axis)
        sides = (letters[0], letters[1]) if known else ("", "")
        views.append(Plane(shown(plane), heat, (spacing[across], spacing[up]), sides))
    return views


def _occupied(inside: np.ndarray, axis: int) -> slice:
    """From where to where along an axis there is foreground, with a margin."""
    others = tuple(other for other in range(3) if other != axis)
    planes = np.flatnonzero(inside.any(others))
    return slice(max(0, int(planes[0]) - MARGIN), min(inside.shape[axis], int(planes[-1]) + MARGIN + 1))


def slices(diagnosis: Diagnosis, heat_map: Map | None = None) -> bytes:
    """A PNG: three planes of the prepared scan, and the same under the map; an image study has one picture."""
    return png(picture(planes(diagnosis, heat_map)))


def png(drawn: Image.Image) -> bytes:
    file = io.BytesIO()
    drawn.save(file, format="PNG", compress_level=3)
    return file.getvalue()


def picture(views: list[Plane], brief: bool = False) -> Image.Image:
    """All planes to one scale: three above their maps, in brief their maps alone; one picture beside its own."""
    plain, mapped = ([(view, heated) for view in views] for heated in (False, True))
    rows = [plain] if views[0].strength is None else [plain, mapped] if len(views) > 1 else [plain + mapped]
    rows = rows[-1:] if brief else rows
    scale = WIDTH / sum(view.size[0] for view, _ in rows[0])  # pixels a mm
    tall = round(scale * max(view.size[1] for view in views))
    canvas = Image.new("RGB", (WIDTH, tall * len(rows)))
    for number, row in enumerate(rows):
        left = 0.0
        for view, heated in row:
            drawn = _drawn(view, heated, scale)
            canvas.paste(drawn, (round(left), number * tall + (tall - drawn.height) // 2))
            left += scale * view.size[0]
    return canvas


def _drawn(view: Plane, heated: bool, scale: float) -> Image.Image:
    colours = HEAT.blend(view.grey, view.strength if heated else None)
    pixels = Image.fromarray(np.rint(255 * colours.clip(0, 1)).astype(np.uint8))
    width, height = (max(1, round(scale * side)) for side in view.size)
    pixels = pixels.resize((width, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(pixels)
    for at, letter, anchor in ((8, view.sides[0], "lm"), (width - 8, view.sides[1], "rm")):
        pen.text((at, height / 2), letter, fill="white", font=letters(), anchor=anchor)
    return pixels


@cache
def letters() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(18)
