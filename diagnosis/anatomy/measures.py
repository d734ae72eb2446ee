"""What a segmentation is worth in numbers: volumes, shares, asymmetries, indices and two computed grades.

`MEASURES` is the whole list, as data. A volume is the sum of the probabilities. Every value has a low and a high:
outlines err at surfaces, so a volume's doubt is a share of volume^⅔, as large as nine of ten known volumes of
held-out heads ask for; it is handed on to whatever is computed from volumes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from diagnosis.anatomy.segment import TISSUE, Segmentation
from networks.segmenter import CLASSES

SURELY, POSSIBLY = 0.75, 0.25  # probabilities between which the Evans index is in doubt
RAW = {"factor": 1.0, "doubt": 1.0}
UNCALIBRATED = {"factor": 1.0, "doubt": 0.5}  # ml^⅓
VENTRICLES = ("lateral", "inferior_horn", "third", "fourth")
INSIDE = tuple(name for name in CLASSES if name != "background")  # the skull

# How much fluid or how little hippocampus makes which grade; between two rows it runs straight. The rows were laid
# so that the healthy come to lie below 1; they are no reader's eye, hence "computed".
TEMPORAL = ((1.0, 0.0), (0.92, 0.5), (0.85, 1.0), (0.75, 2.0), (0.62, 3.0), (0.48, 4.0))  # occupancy → 0–4
CORTICAL = (
    (0.14, 0.0),
    (0.22, 1.0),
    (0.30, 2.0),
    (0.38, 3.0),
)  # fluid outside the ventricles ÷ intracranial → 0–3


@dataclass(frozen=True)
class Measure:
    title: str
    unit: str  # "ml", "%", "ratio" or "grade"
    kind: str  # how it is taken: a key of KINDS
    of: tuple[str, ...]  # classes, or the names of other measures
    side: str = ""  # "left", "right" or both
    digits: int = 1  # to show
    computed: bool = False  # a grade that no reader gave


@dataclass(frozen=True)
class Centile:
    """The share of the controls, in percent, that have less; `low` and `high` for how few the controls are.

    Beyond the outermost curve `value` is that curve's.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Value:
    value: float
    unit: str
    low: float
    high: float
    centile: Centile | None = None  # among controls, where norms are known

    def record(self) -> dict[str, Any]:
        """As the API gives it."""
        rounded = {name: round(getattr(self, name), 4) for name in ("value", "low", "high")}
        found = self.centile
        return {
            "value": rounded.pop("value"),
            "unit": self.unit,
            **rounded,
            "centile": found and round(found.value, 1),
            "centile_range": found and [round(found.low, 1), round(found.high, 1)],
        }


def _both(name: str, title: str, of: tuple[str, ...]) -> dict[str, Measure]:
    """A volume left and right, and how they differ."""
    sides = {
        f"{name}_{side}": Measure(f"{title}, {side}", "ml", "volume", of, side, 2) for side in ("left", "right")
    }
    return sides | {f"{name}_asymmetry": Measure(f"{title}, left minus right", "%", "asymmetry", tuple(sides))}


def _share(name: str, title: str) -> dict[str, Measure]:
    return {f"{name}_share": Measure(f"{title}, of the volume inside the skull", "%", "share",
                                     (name, "intracranial"), digits=2)}  # fmt: skip


MEASURES: dict[str, Measure] = {
    "intracranial": Measure("Inside the skull", "ml", "volume", INSIDE, digits=0),
    "brain": Measure("Brain", "ml", "volume", TISSUE, digits=0),
    "grey": Measure("Cortex and other grey matter", "ml", "volume", ("grey", "hippocampus"), digits=0),
    "white": Measure("White matter", "ml", "volume", ("white",), digits=0),
    "fluid": Measure("Fluid outside the ventricles", "ml", "volume", ("fluid",), digits=0),
    "ventricles": Measure("Ventricles", "ml", "volume", VENTRICLES),
    "third": Measure("Third ventricle", "ml", "volume", ("third",), digits=2),
    "fourth": Measure("Fourth ventricle", "ml", "volume", ("fourth",), digits=2),
    "lateral_ventricles": Measure("Lateral ventricles", "ml", "volume", ("lateral",)),
    "inferior_horns": Measure("Inferior horns", "ml", "volume", ("inferior_horn",), digits=2),
    "hippocampi": Measure("Hippocampi", "ml", "volume", ("hippocampus",), digits=2),
    "cerebellum": Measure("Cerebellum", "ml", "volume", ("cerebellum",)),
    "stem": Measure("Brain stem", "ml", "volume", ("stem",)),
    **_both("hippocampus", "Hippocampus", ("hippocampus",)),
    **_both("lateral_ventricle", "Lateral ventricle", ("lateral",)),
    **_both("inferior_horn", "Inferior horn", ("inferior_horn",)),
    **_share("brain", "Brain"),
    **_share("ventricles", "Ventricles"),
    **_share("hippocampi", "Hippocampi"),
    **_share("inferior_horns", "Inferior horns"),
    **_share("fluid", "Fluid outside the ventricles"),
    "evans": Measure("Evans index", "ratio", "evans", ("lateral",), digits=2),
    "occupancy_left": Measure("Hippocampal occupancy, left", "ratio", "occupancy",
                              ("hippocampus_left", "inferior_horn_left"), digits=2),
    "occupancy_right": Measure("Hippocampal occupancy, right", "ratio", "occupancy",
                               ("hippocampus_right", "inferior_horn_right"), digits=2),
    "mta_left": Measure("Medial temporal atrophy, left (0–4)", "grade", "temporal", ("occupancy_left",),
                        computed=True),
    "mta_right": Measure("Medial temporal atrophy, right (0–4)", "grade", "temporal", ("occupancy_right",),
                         computed=True),
    "gca": Measure("Global cortical atrophy (0–3)", "grade", "cortical", ("fluid", "intracranial"), computed=True),
}  # fmt: skip
NOT_ASSESSED = ("bleeds", "white-matter lesions", "strategic infarcts")  # a T1 cannot show them
INTRACRANIAL_ML = (500.0, 2600.0)  # an infant's to the largest adult's; past it something else was outlined

Triple = tuple[float, float, float]  # value, low, high


def measure(found: Segmentation) -> dict[str, Value]:
    """Every measure of a segmentation, by name."""
    volumes = volumes_by_class(found)
    known: dict[str, Triple] = {}
    for name, asked in MEASURES.items():
        known[name] = KINDS[asked.kind](asked, known, volumes, found)
    return {name: Value(value, MEASURES[name].unit, min(low, value), max(high, value))
            for name, (value, low, high) in known.items()}  # fmt: skip


def volumes_by_class(found: Segmentation, raw: bool = False) -> dict[tuple[str, str], Triple]:
    """ml of each class on each side: the sum of probabilities, and from where to where it is believed.

    `raw` leaves out the calibration of the weights file: every doubt is volume^⅔ itself.
    """
    cell = float(np.prod(found.spacing)) / 1000
    left = found.left_in_cubes().to(torch.uint8)
    calibration = found.header.get("calibration", {})
    volumes = {}
    for number, name in enumerate(CLASSES[1:], 1):
        shares = found.shares[:, number].contiguous()
        whole, on_left = (int(each.sum(dtype=torch.int64)) for each in (shares, shares * left))
        for side, total in (("left", on_left), ("right", whole - on_left)):
            value = cell * total / 255
            fit = RAW if raw else UNCALIBRATED | calibration.get(name, {})
            volume = fit["factor"] * value
            doubt = fit["doubt"] * volume ** (2 / 3)
            volumes[name, side] = (volume, max(0.0, volume - doubt), volume + doubt)
    return volumes


def _volume(asked: Measure, known: Mapping[str, Triple], volumes: Mapping, found: Segmentation) -> Triple:
    sides = (asked.side,) if asked.side else ("left", "right")
    parts = np.array([np.sum([volumes[name, side] for side in sides], axis=0) for name in asked.of])
    value = parts[:, 0].sum()
    # What one class lacks another may hold, so for a sum the doubts of its parts do not add up fully.
    low, high = (float(np.sqrt(((parts[:, column] - parts[:, 0]) ** 2).sum())) for column in (1, 2))
    return float(value), float(value - low), float(value + high)


def _share_of(asked: Measure, known: Mapping[str, Triple], volumes: Mapping, found: Segmentation) -> Triple:
    part, whole = (known[name] for name in asked.of)
    value, low, high = (100 * each / max(whole[0], 1e-6) for each in part)
    return value, low, high


def _asymmetry(asked: Measure, known: Mapping[str, Triple], volumes: Mapping, found: Segmentation) -> Triple:
    left, right = (known[name] for name in asked.of)
    per = 200 / max(left[0] + right[0], 1e-6)
    off = lambda a, b: float(np.hypot(left[0] - left[a], right[0] - right[b]))  # noqa: E731
    value = left[0] - right[0]
    return per * value, per * (value - off(1, 2)), per * (value + off(2, 1))


def _occupancy(asked: Measure, known: Mapping[str, Triple], volumes: Mapping, found: Segmentation) -> Triple:
    tissue, fluid = (known[name] for name in asked.of)
    part = lambda a, b: a / max(a + b, 1e-6)  # noqa: E731
    return part(tissue[0], fluid[0]), part(tissue[1], fluid[2]), part(tissue[2], fluid[1])


def _graded(rows: tuple[tuple[float, float], ...], value: float) -> float:
    at, grade = zip(*sorted(rows), strict=True)
    return float(np.interp(value, at, grade))


def _temporal(asked: Measure, known: Mapping[str, Triple], volumes: Mapping, found: Segmentation) -> Triple:
    value, low, high = known[asked.of[0]]
    return _graded(TEMPORAL, value), _graded(TEMPORAL, high), _graded(TEMPORAL, low)


def _cortical(asked: Measure, known: Mapping[str, Triple], volumes: Mapping, found: Segmentation) -> Triple:
    fluid, inside = (known[name] for name in asked.of)
    value, low, high = (_graded(CORTICAL, each / max(inside[0], 1e-6)) for each in fluid)
    return value, low, high


def _evans(asked: Measure, known: Mapping[str, Triple], volumes: Mapping, found: Segmentation) -> Triple:
    """The widest reach of the frontal horns over that inside the skull in the same axial plane."""
    lateral = found.share("lateral").numpy()
    horns = lateral > 255 * 0.5
    if not horns.any():
        return 0.0, 0.0, 0.0
    third = found.classes == CLASSES.index("third")
    by_plane = (third if third.any() else horns).sum((0, 2))  # coronal planes
    front = int(np.average(np.arange(len(by_plane)), weights=by_plane))
    widths = {level: _reach(lateral[:, front:] > 255 * level) for level in (SURELY, 0.5, POSSIBLY)}
    plane = int(widths[0.5].argmax())
    across = max(float(_reach(found.classes[:, :, plane, None] > 0)[0]), 1.0)
    value, low, high = (float(widths[level][plane]) / across for level in (0.5, SURELY, POSSIBLY))
    return value, low, high


def _reach(mask: np.ndarray) -> np.ndarray:
    """Voxels from the first to the last sagittal plane that holds three or more, in each axial plane."""
    held = mask.sum(1) >= 3  # (X, Z)
    return np.where(held.any(0), len(held) - held[::-1].argmax(0) - held.argmax(0), 0)


KINDS = {"volume": _volume, "share": _share_of, "asymmetry": _asymmetry, "occupancy": _occupancy,
         "temporal": _temporal, "cortical": _cortical, "evans": _evans}  # fmt: skip
