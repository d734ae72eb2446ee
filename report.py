"""The report of a `Diagnosis`, to file: pictures, one HTML file, the same as PDF, and JSON.

What a report says is one list of blocks (`content`), which the HTML and the PDF both draw. It holds no patient's
name and no path, only the cleaned file name; it loads nothing from anywhere, and works without a browser.
"""

import base64
import html as markup
import io
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from scipy.ndimage import gaussian_filter

import explain
import gate
from explain import Map

if TYPE_CHECKING:  # diagnose writes reports, so it cannot be imported from here
    from diagnose import Diagnosis

WEB = Path(__file__).resolve().parent / "web"
LANGUAGES = ("en", "zh")
INK, QUIET, ACCENT, BAD, DOUBT, GOOD = "#1b2733", "#5c6b7a", "#1f6f8b", "#b3261e", "#b26a00", "#2e7d4f"
TONES = {gate.FIT: GOOD, gate.DOUBTFUL: DOUBT, gate.UNFIT: BAD}
HEAT = LinearSegmentedColormap.from_list("heat", ["#2f7fff", "#66c6ff", "#ffb000", "#ff3d00"])
_drawing = threading.Lock()  # matplotlib's font cache is shared


# --- texts ------------------------------------------------------------------------------------------------


@lru_cache
def texts(language: str) -> dict[str, str]:
    """The page's texts and the report's own, in one language; unknown languages get English."""
    found = {}
    for name in ("texts.json", "report.json"):
        table = json.loads((WEB / name).read_text(encoding="utf-8"))
        found |= table[language if language in table else "en"]
    return found


def class_name(diagnosis: "Diagnosis", code: str, say: dict[str, str]) -> str:
    study = diagnosis.weights.study
    names = {label.code: label.name for label in study.labels}
    return say.get(f"class.{study.key}.{code}", names[code])


# --- pictures ---------------------------------------------------------------------------------------------


def slices(diagnosis: "Diagnosis", found: Map | None = None) -> bytes:
    """A PNG: three planes of the prepared scan, and the same under the map; an image study has one picture."""
    with _drawing:
        views = planes(diagnosis, found)
        height = 3.0 * (2 if found else 1)
        figure = Figure(figsize=(3.0 * len(views), height), dpi=110, facecolor="black")
        draw_planes(figure, (0, 0, 1, 1), views)
        return png(figure)


def chart(diagnosis: "Diagnosis", language: str = "en") -> bytes:
    """A PNG: the probabilities as bars, in the order of severity; Chinese where a font for it is installed."""
    with _drawing:
        say, font = texts(language), font_for(language)
        if font is None:
            say, font = texts("en"), font_for("en")
        figure = Figure(figsize=(6.4, 0.4 * len(diagnosis.weights.study.labels) + 0.2), dpi=110)
        draw_chart(figure.add_axes((0, 0, 1, 1)), diagnosis, say, font)
        return png(figure)


def png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor=figure.get_facecolor())
    return file.getvalue()


@dataclass(frozen=True, eq=False)
class Plane:
    """One cut through the scan, ready to be shown: row 0 on top."""

    grey: np.ndarray  # (rows, columns), 0 to 1
    heat: np.ndarray | None  # (rows, columns), −1 to 1
    ratio: float  # height of a voxel over its width
    sides: tuple[str, str]  # letters at the left and right edge


def planes(diagnosis: "Diagnosis", found: Map | None) -> list[Plane]:
    """Axial, coronal and sagittal planes through where the map is strongest, else through the middle."""
    prepared, study = diagnosis.prepared, diagnosis.weights.study
    values = prepared.tensor.mean(0).numpy()  # (X, Y, Z) or (H, W)
    inside = prepared.foreground.numpy()
    if not inside.any():
        inside = np.ones_like(inside)
    low, high = values.min(), np.percentile(values[inside], 99.5)
    grey = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    heat = None if found is None else scaled(found)
    if study.contract.kind == "image":
        return [Plane(grey, heat, 1.0, ("", ""))]
    turn = nibabel.io_orientation(prepared.affine)
    grey, inside = (nibabel.apply_orientation(part, turn) for part in (grey, inside))
    spacing = np.linalg.norm(prepared.affine[:3, :3], axis=0)[np.argsort(turn[:, 0])]
    if heat is not None:
        heat = nibabel.apply_orientation(heat, turn)
    box, cuts = [], []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        occupied = np.flatnonzero(inside.any(others))
        first, last = max(0, occupied[0] - 8), min(grey.shape[axis], occupied[-1] + 9)
        box.append(slice(first, last))
        strength = np.zeros(0) if heat is None else np.where(inside, heat, 0).clip(0).sum(others)
        cuts.append(int(strength.argmax()) if strength.any() else (occupied[0] + occupied[-1]) // 2)
    known = "no-affine" not in prepared.notes
    made = []
    for axis, letters in ((2, "RL"), (1, "RL"), (0, "AP")):
        place = [*box[:axis], cuts[axis], *box[axis + 1:]]
        # (first, second) axis → rows from the top down, columns mirrored: right and front lie on the left
        views = [None if part is None else part[tuple(place)].T[::-1, ::-1] for part in (grey, heat)]
        across, up = (n for n in range(3) if n != axis)
        made.append(Plane(*views, spacing[up] / spacing[across], tuple(letters) if known else ("", "")))
    return made


def scaled(found: Map) -> np.ndarray:
    """A map as −1 to 1 of its strongest; relevance, which is spiky by nature, smoothed a little for the eye."""
    values = gaussian_filter(found.values, 1.5) if found.method == "relevance" else found.values
    top = np.percentile(np.abs(values), 99.95)
    return np.clip(values / top, -1, 1) if top > 0 else np.zeros_like(values)


def draw_planes(figure: Figure, area: tuple[float, float, float, float], views: list[Plane]) -> None:
    """The planes side by side in an area (left, bottom, width, height) of the figure; maps in a second row."""
    left, bottom, width, height = area
    rows = 2 if views[0].heat is not None else 1
    share = width / len(views), height / rows
    for number, view in enumerate(views):
        for row in range(rows):
            corner = left + number * share[0], bottom + (rows - 1 - row) * share[1]
            axes = figure.add_axes((*corner, *share), facecolor="black")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.imshow(view.grey, cmap="gray", vmin=0, vmax=1, aspect=view.ratio, interpolation="bilinear")
            if row:
                strength = np.abs(view.heat)
                axes.imshow(view.heat, cmap=HEAT, vmin=-1, vmax=1, aspect=view.ratio, interpolation="bilinear",
                            alpha=np.where(strength < 0.12, 0, 0.25 + 0.5 * strength))
            for x, letter, side in ((0.02, view.sides[0], "left"), (0.98, view.sides[1], "right")):
                axes.text(x, 0.5, letter, color="white", fontsize=10, ha=side, va="center",
                          transform=axes.transAxes)


def draw_chart(axes: Axes, diagnosis: "Diagnosis", say: dict[str, str], font: FontProperties) -> None:
    """Bars from least to most severe on top of each other; the predicted class in colour."""
    codes = diagnosis.weights.study.by_severity
    axes.set_axis_off()
    axes.set_xlim(-0.75, 1.12)
    axes.set_ylim(len(codes) - 0.4, -0.6)
    for row, code in enumerate(codes):
        value = (diagnosis.probabilities or {}).get(code, 0.0)
        chosen = code == diagnosis.label
        axes.barh(row, 1, height=0.56, color="#e8edf1")
        axes.barh(row, value, height=0.56, color=ACCENT if chosen else "#9db4c0")
        axes.text(-0.02, row, f"{class_name(diagnosis, code, say)}  {code}", ha="right", va="center", size=9,
                  color=INK, fontproperties=font)
        axes.text(1.02, row, f"{value:.1%}", ha="left", va="center", size=9, color=INK, fontproperties=font)


def font_for(language: str) -> FontProperties | None:
    return FontProperties(family="DejaVu Sans")
