"""The pictures of a `Diagnosis`: the scan in three planes with and without a map, and the probabilities as bars.

Matplotlib's objects alone, without pyplot and its global state, so that several threads may ask at once.
"""

import atexit
import io
import json
import shutil
import tempfile
import threading
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import nibabel
import numpy as np
from fontTools.ttLib import TTCollection
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager, get_font
from scipy.ndimage import gaussian_filter

from diagnosis.diagnoser import Diagnosis
from diagnosis.explain import Map

WEB = Path(__file__).resolve().parent.parent / "web"
INK, QUIET, ACCENT, PLAIN = "#1b2733", "#5c6b7a", "#1f6f8b", "#9db4c0"
HEAT = LinearSegmentedColormap.from_list("heat", ["#2f7fff", "#66c6ff", "#ffb000", "#ff3d00"])
MARGIN = 8  # voxels shown around the head
FAINT = 0.12  # of the strongest; weaker influence is not shown
drawing = threading.Lock()  # matplotlib's font cache is shared


@lru_cache
def texts(language: str) -> dict[str, str]:
    """The page's texts and the report's own, in one language; unknown languages get English."""
    found = {}
    for name in ("texts.json", "report.json"):
        table = json.loads((WEB / name).read_text(encoding="utf-8"))
        found |= table[language if language in table else "en"]
    return found


def class_name(diagnosis: Diagnosis, code: str, say: dict[str, str]) -> str:
    study = diagnosis.weights.study
    names = {label.code: label.name for label in study.labels}
    return say.get(f"class.{study.key}.{code}", names[code])


def slices(diagnosis: Diagnosis, found: Map | None = None) -> bytes:
    """A PNG: three planes of the prepared scan, and the same under the map; an image study has one picture."""
    with drawing:
        views = planes(diagnosis, found)
        figure = Figure(figsize=(9.0, 9.0 * proportion(views)), dpi=110, facecolor="black")
        draw_planes(figure, (0, 0, 1, 1), views)
        return png(figure)


def chart(diagnosis: Diagnosis, language: str = "en") -> bytes:
    """A PNG: the probabilities as bars, in the order of severity; Chinese where a font for it is installed."""
    with drawing:
        say, font = texts(language), font_for(language)
        if font is None:
            say, font = texts("en"), font_for("en")
        figure = Figure(figsize=(6.4, 0.4 * len(diagnosis.weights.study.labels) + 0.2), dpi=110)
        draw_chart(figure.add_axes((0, 0, 1, 1)), diagnosis, say, font)
        return png(figure)


def png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor=figure.get_facecolor(), pil_kwargs={"compress_level": 1})
    return file.getvalue()


@dataclass(frozen=True, eq=False)
class Plane:
    """One cut through the scan, ready to be shown: row 0 on top."""

    grey: np.ndarray  # (rows, columns), 0 to 1
    heat: np.ndarray | None  # (rows, columns), −1 to 1
    voxel: tuple[float, float]  # width and height, mm (of an image: 1)
    sides: tuple[str, str]  # letters at the left and right edge


def planes(diagnosis: Diagnosis, found: Map | None) -> list[Plane]:
    """Axial, coronal and sagittal planes through where the map is strongest, else through the middle."""
    prepared, study = diagnosis.prepared, diagnosis.weights.study
    grey, inside = prepared.grey.numpy(), prepared.foreground.numpy()  # (X, Y, Z) or (H, W)
    if not inside.any():
        inside = np.ones_like(inside)
    low, high = prepared.window(99.5)
    heat = None if found is None else found.values
    blur = 1.5 if found and found.method == "relevance" else 0.0  # spiky by nature; calmer for the eye
    if study.contract.kind == "image":
        views = [Plane(grey, heat, (1.0, 1.0), ("", ""))]
        return [finished(view, low, high, strongest(views, blur), blur) for view in views]
    turn = nibabel.io_orientation(prepared.affine)
    spacing = np.linalg.norm(prepared.affine[:3, :3], axis=0)[np.argsort(turn[:, 0])]
    grey, inside = (nibabel.apply_orientation(part, turn) for part in (grey, inside))
    if heat is not None:
        heat = nibabel.apply_orientation(heat, turn)
        speaks = np.where(inside, heat, 0).clip(0)
    box, cuts = [], []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        occupied = np.flatnonzero(inside.any(others))
        box.append(slice(max(0, occupied[0] - MARGIN), occupied[-1] + MARGIN + 1))
        strength = np.zeros(0) if heat is None else speaks.sum(others)
        cuts.append(int(strength.argmax()) if strength.any() else (occupied[0] + occupied[-1]) // 2)
    known = "no-affine" not in prepared.notes
    views = []
    for axis, letters in ((2, "RL"), (1, "RL"), (0, "AP")):
        place = (*box[:axis], cuts[axis], *box[axis + 1 :])
        # (first, second) axis → rows from the top down, columns mirrored: right and front lie on the left
        parts = [None if part is None else part[place].T[::-1, ::-1] for part in (grey, heat)]
        across, up = (n for n in range(3) if n != axis)
        views.append(Plane(*parts, (spacing[across], spacing[up]), tuple(letters) if known else ("", "")))
    return [finished(view, low, high, strongest(views, blur), blur) for view in views]


def strongest(views: list[Plane], blur: float) -> float:
    """The strongest influence that the planes show, for or against; of a spiky map that of all but 0.3 %."""
    shown = [np.abs(gaussian_filter(view.heat, blur)) for view in views if view.heat is not None]
    return max((float(np.percentile(part, 99.7 if blur else 100)) for part in shown), default=0.0)


def finished(view: Plane, low: float, high: float, top: float, blur: float) -> Plane:
    """The plane with its grey values brought to 0…1 and its map to −1…1."""
    grey = np.clip((view.grey - low) / max(high - low, 1e-6), 0, 1)
    heat = None if view.heat is None else np.clip(gaussian_filter(view.heat, blur) / (top or 1.0), -1, 1)
    return replace(view, grey=grey, heat=heat)


def panels(views: list[Plane]) -> list[list[tuple[Plane, bool]]]:
    """Rows of panels, each with or without its map: three planes above their maps, one picture beside its own."""
    plain, mapped = ([(view, heated) for view in views] for heated in (False, True))
    if views[0].heat is None:
        return [plain]
    return [plain, mapped] if len(views) > 1 else [plain + mapped]


def extent(view: Plane) -> tuple[float, float]:
    """Half the plane's width and height, mm."""
    return view.grey.shape[1] * view.voxel[0] / 2, view.grey.shape[0] * view.voxel[1] / 2


def proportion(views: list[Plane]) -> float:
    """The height of all panels together over their width."""
    rows = panels(views)
    return len(rows) * max(extent(view)[1] for view in views) / sum(extent(view)[0] for view, _ in rows[0])


def draw_planes(figure: Figure, area: tuple[float, float, float, float], views: list[Plane]) -> None:
    """The panels, all to one scale, in an area (left, bottom, width, height) of the figure."""
    rows = panels(views)
    wide, tall = sum(extent(view)[0] for view, _ in rows[0]), max(extent(view)[1] for view in views)
    axes = figure.add_axes(area, facecolor="black")  # in mm, from the lower left corner
    axes.set_axis_off()
    for number, row in enumerate(rows):
        left, middle = 0.0, tall * (2 * (len(rows) - number) - 1)
        for view, heated in row:
            across, up = extent(view)
            place = (left, left + 2 * across, middle - up, middle + up)
            look = {"extent": place, "interpolation": "bilinear", "aspect": "auto"}
            axes.imshow(view.grey, cmap="gray", vmin=0, vmax=1, **look)
            if heated:
                strength = np.abs(view.heat)
                veil = np.where(strength < FAINT, 0, 0.25 + 0.5 * strength)
                axes.imshow(view.heat, cmap=HEAT, vmin=-1, vmax=1, alpha=veil, **look)
            for at, letter, side in ((0.02, view.sides[0], "left"), (0.98, view.sides[1], "right")):
                axes.text(left + 2 * across * at, middle, letter, color="white", size=9, ha=side, va="center")
            left += 2 * across
    axes.set_xlim(0, 2 * wide)
    axes.set_ylim(0, 2 * tall * len(rows))


def draw_chart(axes: Axes, diagnosis: Diagnosis, say: dict[str, str], font: FontProperties) -> None:
    """Bars from least to most severe on top of each other; the predicted class in colour."""
    codes = diagnosis.weights.study.by_severity
    axes.set_axis_off()
    axes.set_xlim(-0.8, 1.25 if diagnosis.intervals else 1.18)
    axes.set_ylim(len(codes) - 0.4, -0.6)
    for row, code in enumerate(codes):
        value = (diagnosis.probabilities or {}).get(code, 0.0)
        chosen = code == diagnosis.label
        axes.barh(row, 1, height=0.56, color="#e8edf1")
        axes.barh(row, value, height=0.56, color=ACCENT if chosen else PLAIN)
        axes.text(
            -0.02,
            row,
            f"{class_name(diagnosis, code, say)}  {code}",
            ha="right",
            va="center",
            size=9,
            color=INK,
            fontproperties=font,
        )
        if diagnosis.intervals:
            low, high = diagnosis.intervals[code]
            axes.errorbar(
                (low + high) / 2, row + 0.38, xerr=(high - low) / 2, color=INK, lw=0.8, capsize=1.6, capthick=0.8
            )
            axes.text(
                1.02,
                row + 0.4,
                f"{low:.1%}–{high:.1%}",
                ha="left",
                va="center",
                size=7,
                color=QUIET,
                fontproperties=font,
            )
        axes.text(1.02, row, f"{value:.1%}", ha="left", va="center", size=9, color=INK, fontproperties=font)


# --- fonts ------------------------------------------------------------------------------------------------

# Chinese fonts by the names under which matplotlib lists them, the best first; none is shipped.
CHINESE = (
    "Noto Sans CJK SC",
    "Source Han Sans SC",
    "Noto Sans CJK JP",
    "PingFang SC",
    "PingFang HK",
    "Heiti TC",
    "STHeiti",
    "Microsoft YaHei",
    "SimHei",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Arial Unicode MS",
)


@lru_cache
def font_for(language: str) -> FontProperties | None:
    """A font that writes the language; None where no Chinese font is installed."""
    if language != "zh":
        return FontProperties(family="DejaVu Sans")
    installed = {
        entry.name: entry.fname
        for entry in fontManager.ttflist
        if entry.weight in (400, "normal", "regular") and entry.style == "normal"
    }
    path = next((installed[name] for name in CHINESE if name in installed), None)
    return None if path is None else FontProperties(fname=simplified(path))


def simplified(path: str) -> str:
    """The font file itself, or, of a collection, its face for simplified Chinese in a file of its own.

    Matplotlib reads a collection's first face alone, which often is the Japanese one.
    """
    if not path.lower().endswith(".ttc"):
        return path
    folder = tempfile.mkdtemp(prefix="scanwise-font-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with TTCollection(path, lazy=True) as faces:
        names = [face["name"].getDebugName(1) or "" for face in faces.fonts]
        chosen = next((number for number, name in enumerate(names) if name.endswith(" SC")), 0)
        alone = str(Path(folder) / "face.otf")
        faces.fonts[chosen].save(alone)
    return alone


def printable(text: str, font: FontProperties) -> str:
    """The text with a question mark for every character that the font cannot draw."""
    face = get_font(font.get_file() or fontManager.findfont(font))
    return "".join(letter if face.get_char_index(ord(letter)) else "?" for letter in text)
