"""Frontal chest radiographs of simulated thoraxes for the study `chest-nodule`: nodules of known place or none.

The beam diverges from a focus behind the patient through the body to the detector and is weakened as Beer and
Lambert say; scatter, noise, the detector's curve and what else a film shows come after. Places are in mm as in
`simulation.pictures.thorax`, and in pixels of the picture.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter, zoom

from simulation.pictures.lung_disease import Ragged
from simulation.pictures.thorax import Body, anatomy, cage_bones, draw_body, points_in_lungs, tissues, trees
from simulation.pictures.tubes import shadow

WATER_PER_MM = 0.0185  # attenuation of water by a hard beam behind its grid, per mm
BONE_MORE = 1.3  # times, as bone holds back more of a beam than its HU at CT say
RAYS = 144  # along each side, of the soft parts; what is thin is laid on the full picture
STEPS = 36  # along a ray through the body
SOFT = 1040.0  # HU above air of what is not lung, for nodules, vessels and nipples


@dataclass(frozen=True)
class Geometry:
    """Where focus and detector stand: the patient's chest lies against the detector."""

    side: int  # pixels along each side of the full field
    pixel: float  # mm at the detector
    focus: float  # mm from the focus to the detector
    detector: float  # y of the detector, in front of the chest
    middle: tuple[float, float]  # x and z at the middle of the field

    def scale(self, y):
        """How much smaller than on the detector a thing is at depth y."""
        return (self.focus - (y - self.detector)) / self.focus

    def place(self, points: np.ndarray) -> np.ndarray:
        """Rows and columns of points (n, 3)."""
        scale = self.scale(points[:, 1])
        column = (points[:, 0] - self.middle[0]) / scale / self.pixel
        row = (self.middle[1] - points[:, 2]) / scale / self.pixel
        return np.stack([row, column], 1) + (self.side - 1) / 2


@dataclass(frozen=True)
class Nodule:
    """A ball of soft tissue in the lung, or one with lime in it."""

    centre: tuple[float, float, float]
    diameter: float  # mm
    density: float  # HU above lung
    ragged: float


def water(hu: np.ndarray) -> np.ndarray:
    """mm of water that one mm of each tissue is worth to the beam."""
    return np.maximum(hu + 1000, 0) / 1000 + (BONE_MORE - 1) * np.maximum(hu - 100, 0) / 1000


def soft_parts(body: Body, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """mm of water along each ray, of all but ribs, vessels and nodules, and mm of lung: both (RAYS, RAYS)."""
    half = geometry.side * geometry.pixel / 2
    across = np.linspace(-half, half, RAYS, dtype=np.float32)
    back = 1.2 * body.depth + 45
    front = -body.depth - 75
    y = np.linspace(front, back, STEPS, dtype=np.float32)
    step = float(y[1] - y[0])
    total, lungs = np.zeros((RAYS, RAYS), np.float32), np.zeros((RAYS, RAYS), np.float32)
    for depth in y:
        scale = geometry.scale(depth)
        x = (geometry.middle[0] + across * scale)[None]
        z = (geometry.middle[1] - across * scale)[:, None]
        parts = anatomy(body, x, depth, z)
        hu = tissues(body, x, depth, z, parts, step)
        total += water(hu) * step
        lungs += np.clip(parts["lung"] / step + 0.5, 0, 1) * step
    return total, lungs


def _discs(tubes: np.ndarray, geometry: Geometry, inner: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places, radii in pixels and heights in mm of the discs whose sum is the thickness of the tubes."""
    ends = tubes[:, :3], tubes[:, 3:6]
    length = np.linalg.norm(ends[1] - ends[0], axis=1)
    count = np.maximum(1, np.ceil(length / geometry.pixel).astype(int))
    which = np.repeat(np.arange(len(tubes)), count)
    first = np.repeat(np.cumsum(count) - count, count)
    along = ((np.arange(len(which)) - first + 0.5) / count[which])[:, None]
    points = ends[0][which] + along * (ends[1] - ends[0])[which]
    radius = tubes[which, 6] + along[:, 0] * (tubes[which, 7] - tubes[which, 6]) - inner
    bigger = 1 / geometry.scale(points[:, 1]) / geometry.pixel
    # As high as its piece of tube is long, a disc has that piece's volume.
    return geometry.place(points), np.maximum(radius, 0.05) * bigger, (length / count)[which]


def tube_shadow(parts: list[tuple[np.ndarray, float, float]], geometry: Geometry) -> np.ndarray:
    """mm of tube along each ray, summed over (tubes, mm taken off their radius, weight)."""
    discs = [_discs(tubes, geometry, inner) for tubes, inner, _ in parts]
    weights = [weight * high for (_, _, high), (_, _, weight) in zip(discs, parts, strict=True)]
    places, radii = (np.concatenate([disc[k] for disc in discs]) for k in (0, 1))
    return shadow(places, radii, np.concatenate(weights), (geometry.side,) * 2)


def nodule_shadow(nodule: Nodule, geometry: Geometry, noise: Ragged) -> np.ndarray:
    """mm of nodule along each ray: a ball's chord, its outline made ragged."""
    ((row, column),) = geometry.place(np.array([nodule.centre]))
    bigger = 1 / float(geometry.scale(nodule.centre[1]))
    rows, columns = np.ogrid[: geometry.side, : geometry.side]
    away = np.hypot(rows - row, columns - column) * geometry.pixel / bigger
    angle = np.arctan2(rows - row, columns - column)
    radius = nodule.diameter / 2
    thickness = np.zeros((geometry.side, geometry.side), np.float32)
    near = away < 1.6 * radius
    turn = np.stack([3 * np.cos(angle[near]), 3 * np.sin(angle[near]), 0 * angle[near]], 1)
    outline = radius * (1 + nodule.ragged * noise(turn, 1.2))
    thickness[near] = 2 * np.sqrt(np.maximum(outline**2 - away[near] ** 2, 0))
    return gaussian_filter(thickness, 0.5)


# --- the film ----------------------------------------------------------------------------------------------


def draw_nodules(numbers: np.random.Generator, body: Body) -> list[Nodule]:
    """One, seldom more, anywhere in the lungs."""
    count = 1 + int(numbers.random() < 0.18) * int(numbers.integers(1, 4))
    nodules = []
    places = points_in_lungs(body, numbers, 200, 4.0)
    # Those that are found lie mostly where nothing hides them, some behind the heart or the dome.
    beside = np.abs(places[:, 0]) / body.width
    clear = (beside > 0.36) & (beside < 0.88) & (places[:, 2] > 8) & (places[:, 2] < 0.93 * body.height)
    for centre in places[clear | (numbers.random(len(places)) < 0.12)][:count]:
        diameter = float(np.clip(numbers.lognormal(np.log(15), 0.38), 6, 30))
        calcified = numbers.random() < 0.3
        if calcified:
            diameter = float(np.clip(diameter * 0.7, 4, 16))
        density = numbers.uniform(1300, 1900) if calcified else numbers.uniform(820, 960)
        place = (float(centre[0]), float(centre[1]), float(centre[2]))
        nodules.append(Nodule(place, diameter, float(density), numbers.uniform(0.03, 0.14)))
    return nodules


def project(body: Body, geometry: Geometry, nodules: list[Nodule], numbers: np.random.Generator) -> np.ndarray:
    """mm of water along each ray of the full field."""
    side = geometry.side
    soft, lungs = soft_parts(body, geometry)
    finer = side / RAYS
    total = zoom(soft, finer, order=3, grid_mode=True, mode="nearest")[:side, :side]
    inside = zoom(lungs, finer, order=1, grid_mode=True, mode="nearest")[:side, :side]
    air = -body.lung / 1000
    branches, bones = trees(body, 6000), cage_bones(body)
    hard = float(np.clip(1.15 - 0.006 * (body.age - 45), 0.6, 1.2))
    marrow, cortex = 0.30 * hard, 1.35 * hard  # mm of water a mm is worth beyond the flesh it replaces
    tubes = [(branches.vessels, 0.0, air), (branches.walls, 0.0, air), (branches.lumens, 0.0, -1.1 * air)]
    for name, more in (("ribs", 1.0), ("shoulders", 1.3)):
        tubes += [(bones[name], 0.0, more * cortex), (bones[name], 1.0, more * (marrow - cortex))]
    total += tube_shadow(tubes, geometry)
    noise = Ragged(body.seed)
    total += 0.35 * gaussian_filter(numbers.normal(size=total.shape), 1.1) * np.sqrt(np.maximum(inside, 0))
    for side_of in (-1, 1):
        total += 3.5 * hard * _blade(body, geometry, side_of)
    if body.age > 40:  # lime in the ribs' cartilage, in crumbs
        cartilage = bones["cartilage"]
        crumbs = numbers.random(len(cartilage)) < np.clip((body.age - 40) / 60, 0, 0.7)
        speckle = np.clip(gaussian_filter(numbers.normal(size=total.shape), 1.6) * 5.7, 0, None)
        total += 0.55 * tube_shadow([(cartilage[crumbs], 0.0, 1.0)], geometry) * speckle
    for nodule in nodules:
        total += nodule.density / 1000 * nodule_shadow(nodule, geometry, noise)
    if numbers.random() < 0.3:  # nipples stand out from the skin, in air
        high = body.height * numbers.uniform(0.12, 0.3)
        for x in (-0.62, 0.62):
            place = (x * body.width, -body.depth - 25.0, high + float(numbers.normal()) * 4)
            total += nodule_shadow(Nodule(place, numbers.uniform(7, 12), SOFT, 0.05), geometry, noise)
    return total


def _blade(body: Body, geometry: Geometry, side: int) -> np.ndarray:
    """The thin plate of a shoulder blade as a share of each pixel."""
    z = np.array([20, -22, -115]) + body.height
    x = np.array([0.62, 1.02, 0.70]) * body.width * side
    corners = geometry.place(np.stack([x, np.full(3, 75.0), z], 1))
    canvas = Image.new("L", (geometry.side, geometry.side))
    ImageDraw.Draw(canvas).polygon([(float(c), float(r)) for r, c in corners], fill=255)
    return gaussian_filter(np.asarray(canvas, np.float32) / 255, 1.2)


def _blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    """A wide blur, on a picture of a quarter of the size."""
    small = zoom(picture, 0.25, order=1, grid_mode=True, mode="nearest")
    small = gaussian_filter(small, sigma / 4, mode="nearest", truncate=3)
    return zoom(small, np.divide(picture.shape, small.shape), order=1, grid_mode=True, mode="nearest")


def film(total: np.ndarray, geometry: Geometry, numbers: np.random.Generator) -> np.ndarray:
    """Grey values, 0 to 1, bright where much was in the way: beam, scatter, noise and the detector's curve."""
    primary = np.exp(-WATER_PER_MM * total)
    # Behind thick parts most of what arrives was scattered: it comes from far around and hides contrast.
    arrived = primary + numbers.uniform(0.3, 0.8) * _blurred(primary, 45 / geometry.pixel)
    arrived = gaussian_filter(arrived, numbers.uniform(0.25, 0.7))
    quanta = 10 ** numbers.uniform(4.1, 5.2)
    arrived = np.maximum(arrived + np.sqrt(arrived / quanta / 3) * numbers.normal(size=arrived.shape), 1e-4)
    exposure = -np.log(arrived)
    inner = exposure[geometry.side // 6 : -geometry.side // 6, geometry.side // 6 : -geometry.side // 6]
    low, high = np.percentile(inner, [numbers.uniform(0.5, 4), numbers.uniform(95, 99.5)])
    low -= numbers.uniform(0.1, 0.35) * (high - low)  # lungs are dark, the air beside the body darker
    value = (exposure - low) / (high - low)
    # Digital systems hold back the slow waves and lift the edges.
    slow = _blurred(value, 28 / geometry.pixel)
    value = value - numbers.uniform(0.1, 0.45) * (slow - slow.mean())
    value = value + numbers.uniform(0.2, 1.2) * (value - gaussian_filter(value, 1.8 / geometry.pixel + 0.6))
    steep = numbers.uniform(2.6, 4.6)
    curve = 1 / (1 + np.exp(-steep * (value - numbers.uniform(0.42, 0.6))))
    ends = 1 / (1 + np.exp(-steep * (np.array([0, 1]) - 0.5)))
    return np.clip((curve - ends[0]) / (ends[1] - ends[0]), 0, 1)


def _letter(picture: np.ndarray, numbers: np.random.Generator) -> None:
    """The marker of a side, in lead: white, in an upper corner."""
    size = picture.shape[0] * numbers.uniform(0.035, 0.06)
    left = numbers.random() < 0.7
    canvas = Image.new("L", (picture.shape[1], picture.shape[0]))
    column = picture.shape[1] * (numbers.uniform(0.86, 0.93) if left else numbers.uniform(0.04, 0.1))
    row = picture.shape[0] * numbers.uniform(0.03, 0.2)
    ImageDraw.Draw(canvas).text((column, row), "L" if left else "R", font=ImageFont.load_default(size), fill=255)
    lead = gaussian_filter(np.asarray(canvas, np.float32) / 255, 0.6)
    picture += lead * (numbers.uniform(0.85, 1) - picture)


def subject(seed: tuple[int, ...], label: str) -> Iterator[tuple[np.ndarray, dict[str, object]]]:
    """The one film of a person, 8 bits grey, with its truth."""
    body = draw_body(seed, upright=True)
    numbers = np.random.default_rng(np.random.SeedSequence([*seed, 95]))
    side = int(numbers.integers(380, 470))
    field = 2 * body.width * numbers.uniform(1.22, 1.42)
    geometry = Geometry(
        side, field / side, numbers.uniform(1500, 1900), -body.depth - 60,
        (numbers.normal() * 6, body.height * 0.44 + numbers.normal() * 9),
    )  # fmt: skip
    # Nodules are drawn for everybody, and left out of the normal: nothing else then differs between the classes.
    nodules = draw_nodules(np.random.default_rng(np.random.SeedSequence([*seed, 96])), body)
    nodules = nodules if label == "nodule" else []
    value = film(project(body, geometry, nodules, numbers), geometry, numbers)
    if numbers.random() < 0.75:
        _letter(value, numbers)
    if numbers.random() < 0.25:  # the collimator's edge, black or white as systems show it
        edges = (side * numbers.uniform(0, 0.07, 4)).astype(int)
        shut = np.ones_like(value, bool)
        shut[edges[0] : side - edges[1], edges[2] : side - edges[3]] = False
        value[shut] = numbers.choice([0.0, 0.97])
    short = int(side * numbers.uniform(0.82, 1))  # films are seldom square
    top = (side - short) // 2
    value = value[top : top + short]
    truth: dict[str, object] = {
        "class": label, "age": round(body.age), "sex": "F" if body.female else "M",
        "inflation": round(body.inflation, 2), "pixel_mm": round(geometry.pixel, 3), "nodules": len(nodules),
    }  # fmt: skip
    largest = max(nodules, key=lambda nodule: nodule.diameter, default=None)
    place = geometry.place(np.array([largest.centre]))[0] - [top, 0] if largest else None
    truth |= {
        "diameter_mm": round(largest.diameter, 1) if largest else "",
        "calcified": int(largest.density > 1000) if largest else "",
        "row": round(float(place[0]), 1) if place is not None else "",
        "column": round(float(place[1]), 1) if place is not None else "",
    }
    for k, axis in enumerate(("left_mm", "back_mm", "up_mm")):
        truth[axis] = round(largest.centre[k], 1) if largest else ""
    yield np.round(value * 255).astype(np.uint8), truth
