"""A thorax as formulas in millimetres: a body drawn from a seed, and what lies at any point of it.

x runs to the patient's left, y to the back, z up; the origin lies in the midline, in the middle of the chest's
depth, as high as the right dome of the diaphragm. Every surface is a depth in mm, positive inside. Vessels,
airways and ribs are tubes (`simulation.pictures.tubes`): `trees` and `cage_bones` give those of a body.
"""

from dataclasses import dataclass

import numpy as np

from simulation.pictures.tubes import chain, distance, grow

AIR, FAT, WATER, MUSCLE, BLOOD, LIVER = -1000.0, -100.0, 5.0, 50.0, 40.0, 58.0  # HU
REACH = 30.0  # mm from an organ at which it no longer matters
MARROW, CORTEX, SKIN = 160.0, 700.0, 20.0
FULL_HEIGHT = 205.0  # mm from the dome to the apex at which the mediastinum is laid out

# The heart and the great vessels of a middle-sized chest: ends, then the radius at each, mm.
GREAT = np.array([
    (28, -30, 34, 54, -38, 22, 46, 34),  # ventricles, to the apex
    (-6, -24, 44, 18, -26, 52, 37, 38),  # atria, right and in front
    (-4, 4, 58, 14, 6, 62, 24, 24),  # left atrium
    (-5, -25, 70, -14, -28, 112, 15, 15),  # ascending aorta
    (-14, -26, 116, 10, 4, 127, 14, 13),  # arch
    (10, 4, 127, 21, 30, 114, 13, 12.5),
    (21, 30, 114, 18, 37, 0, 12.5, 11.5),  # descending aorta
    (18, 37, 0, 8, 38, -110, 11.5, 11),
    (-26, -10, 150, -25, -12, 66, 9, 9.5),  # superior vena cava
    (-26, -10, 148, -38, -4, 186, 8, 7),  # vessels to the neck and the arms
    (-10, -6, 128, -24, 2, 200, 7, 7),
    (8, 0, 130, 32, 4, 196, 7, 6),
    (-22, -14, 146, 34, -8, 176, 7, 7),
    (12, -36, 78, 24, -14, 100, 15, 13),  # pulmonary trunk and arteries
    (16, -10, 96, -34, 0, 92, 11, 9),
    (24, -12, 102, 34, 8, 102, 12, 9),
    (0, 12, 210, 0, 16, 106, 12, 12),  # trachea with its wall
    (0, 16, 106, -32, 8, 92, 9, 7.5),  # main bronchi
    (0, 16, 106, 34, 10, 96, 8, 7),
    (4, 27, 200, 2, 26, 60, 8, 9),  # gullet
    (2, 26, 60, 12, 20, -60, 9, 9),
    (-12, 30, 120, -10, 32, -60, 5, 5),  # azygos vein
], float)  # fmt: skip
AIRWAY = np.array(
    [(0, 12, 260, 0, 16, 106, 9, 8.6), (0, 16, 106, -36, 8, 91, 7, 5.8), (0, 16, 106, 38, 10, 95, 6, 5.2)]
)
HILA = np.array([(-37, 4, 92), (37, 8, 100), (-30, 8, 70), (30, 10, 74)], float)  # arteries, then veins
FISSURES = ("oblique", "oblique", "horizontal")


@dataclass(frozen=True)
class Body:
    """One person: what the seed decided. Lengths in mm, the rest shares."""

    seed: tuple[int, ...]
    age: float
    female: bool
    width: float  # half of the lungs' width, front to back likewise
    depth: float
    height: float  # from the right dome to the apex, less in expiration
    left_lower: float  # how much lower the left dome lies
    inflation: float  # 0 full expiration, 1 full inspiration
    fat: float  # thickness under the skin
    muscle: float
    heart: float  # times the usual size
    sway: tuple[float, ...]  # of the spine and of the chest's halves
    mediastinal_fat: float
    upright: bool
    great: np.ndarray
    airway: np.ndarray
    roots: np.ndarray

    @property
    def lung(self) -> float:
        """HU of the lungs without disease, between the visible vessels."""
        return -800.0 - 75.0 * self.inflation


def draw_body(seed: tuple[int, ...], upright: bool = False) -> Body:
    """A person from a seed alone, standing for a radiograph or lying for CT."""
    numbers = np.random.default_rng(np.random.SeedSequence([*seed, 71]))
    between = numbers.uniform
    female = bool(numbers.random() < 0.5)
    age = float(np.clip(numbers.normal(55, 17), 18, 92))
    size = float(np.clip(numbers.normal(0.97 if female else 1.06, 0.05), 0.84, 1.2))
    inflation = float(np.clip(numbers.normal(0.75 if upright else 0.65, 0.22), 0.05, 1))
    height = size * (150 + 60 * inflation + numbers.normal() * 8) * (1.0 if upright else 0.96)
    weight = float(np.clip(numbers.gamma(4, 0.25), 0.25, 2.6))  # 1 is the middle
    heart = float(np.clip(numbers.normal(0.98 + 0.002 * (age - 55), 0.09), 0.78, 1.35))
    tall = np.array([1, 1, height / FULL_HEIGHT])
    great, airway = GREAT.copy(), AIRWAY.copy()
    shift = numbers.normal(0, 3, 2)
    unfolded = np.clip((age - 45) / 40, 0, 1) * between(0, 12)  # an old aorta sways out to the left
    for table in (great, airway):
        table[:, [0, 1, 3, 4]] += np.tile(shift, 2)
        table[:, :3] *= tall
        table[:, 3:6] *= tall
        table[:, 6:] *= size * (1 + 0.05 * numbers.normal(size=(len(table), 1)))
    great[:, [0, 1, 3, 4]] *= size
    great[:3, [0, 3]] += 4 * (heart - 1) * 10 / 4
    great[:3, 6:] *= heart
    great[3:8, 6:] *= 1 + 0.003 * (age - 50)
    great[5, 3] += unfolded
    great[6, [0, 3]] += unfolded * np.array([1, 0.8])
    great[7, 0] += unfolded * 0.8
    roots = HILA * tall * size + np.array([*shift, 0])
    return Body(
        seed, age, female, width=size * between(118, 134), depth=size * (between(78, 94) + 0.12 * (age - 50)),
        height=height, left_lower=between(4, 24), inflation=inflation, fat=4 + 9 * weight, muscle=between(9, 20),
        heart=heart, sway=tuple(numbers.normal(size=8)), mediastinal_fat=between(1, 4) + 2.5 * weight,
        upright=upright, great=great, airway=airway, roots=roots,
    )  # fmt: skip


# --- surfaces ----------------------------------------------------------------------------------------------


def both(a, b, k):
    """The smaller of two depths, rounded over k mm where they meet: inside both."""
    return np.minimum(a, b) - np.square(np.maximum(k - np.abs(a - b), 0)) / (4 * k)


def either(a, b, k):
    return -both(-a, -b, k)


def _swayed(body: Body, x, y, z):
    """Points of the swaying body in the straight one's frame."""
    s = body.sway
    x = x - 3.0 * s[0] * np.sin(z / 75 + 2 * s[1]) - 0.012 * s[2] * y
    return x, y - 2.5 * s[3] * np.sin(z / 90 + 2 * s[4])


def _section(body: Body, z):
    """Half width, half depth and middle of the cage at a height."""
    down = np.clip((body.height - z) / body.height, 0, 1.6)
    full = 1 - np.square(np.clip(1 - down / 0.72, 0, 1))
    lower = np.clip(down - 0.95, 0, 1)
    half_width = body.width * (0.5 + 0.5 * full) * (1 - 0.12 * lower)
    half_depth = body.depth * (0.58 + 0.42 * np.sqrt(full + 1e-6))
    middle = 0.22 * body.depth * (1 - np.sqrt(full + 1e-6))
    return half_width, half_depth, middle


def cage(body: Body, x, y, z):
    """Depth inside the inner surface of the ribs."""
    wide, deep, middle = _section(body, z)
    side = 1 + 0.025 * body.sway[5] * np.sign(x)
    gutter = 1 + 0.12 * np.exp(-np.square((np.abs(x) - 0.52 * wide) / (0.42 * wide)))  # beside the spine
    u, v = np.abs(x) / (wide * side), (y - middle) / np.where(y > middle, deep * gutter, deep)
    power = np.where(v < 0, 2.35, 2.3)
    out = np.power(np.power(u, power) + np.power(np.abs(v) + 1e-6, power), 1 / power)
    scale = np.where(v < 0, 0.9, 1.0) * np.minimum(wide, deep)
    return (1 - out) * scale


def spine(body: Body, x, y, z):
    """Depth inside the vertebral bodies, and inside what lies behind and beside them."""
    _, deep, middle = _section(body, z)
    front = middle + deep - 0.62 * body.depth  # where the bodies begin
    centre = front + 19
    bodies = 19 - np.sqrt(np.square(x) + np.square((y - centre) * 0.98))
    wedge = 10 + 0.55 * np.maximum(y - centre, 0) - np.abs(x)
    behind = np.minimum(wedge, y - centre + 2)
    return bodies, behind, centre


def diaphragm(body: Body, x, y, z):
    """Height above the diaphragm."""
    right = x < 0
    top = np.where(right, 0.0, -body.left_lower)
    middle = np.where(right, -0.48, 0.5) * body.width
    u2 = np.square((x - middle) / (0.52 * body.width)) + np.square((y + 12) / (1.0 * body.depth))
    flat = 0.75 + 0.5 * (1 - body.inflation)
    fall = 44 * flat * np.power(u2, 1.25) + 0.33 * (y + 12) + 3 * body.sway[6] * np.sin(x / 23 + y / 31)
    # Between the domes the heart's floor.
    u2 = np.square((x - 8) / (0.5 * body.width)) + np.square((y + 22) / (0.8 * body.depth))
    floor = z - 6 + 40 * np.power(u2, 1.5)
    return both(z - top + np.minimum(fall, 150), floor, 10)


def structures(body: Body, x, y, z):
    """Depth inside the heart, the great vessels, trachea and gullet; -REACH wherever it is further away."""
    low, high = (
        np.minimum(body.great[:, :3], body.great[:, 3:6]),
        np.maximum(body.great[:, :3], body.great[:, 3:6]),
    )
    reach = body.great[:, 6:].max(1) + REACH
    near = np.ones(len(body.great), bool)
    for axis, values in ((1, y), (2, z)):
        near &= (low[:, axis] - reach < np.max(values)) & (high[:, axis] + reach > np.min(values))
    shape = np.broadcast_shapes(np.shape(x), np.shape(y), np.shape(z))
    inside = np.full(shape, -REACH, np.float32)
    if not near.any():
        return inside
    chosen = body.great[near]
    beside = (x > (low[near, 0] - reach[near]).min()) & (x < (high[near, 0] + reach[near]).max())
    if len(shape) == 2 and np.shape(x) != shape:  # a plane: the columns beside the organs need no distances
        columns = np.flatnonzero(beside.any(0))
        if len(columns):
            block = np.s_[:, columns[0] : columns[-1] + 1]
            parts = [np.broadcast_to(axis, shape)[block] for axis in (x, y, z)]
            inside[block] = distance(chosen, *parts)
        return np.maximum(inside, -REACH)
    return np.maximum(distance(chosen, x, y, z), -REACH)


def anatomy(body: Body, x, y, z) -> dict[str, np.ndarray]:
    """The depths that all else is made of, at points given by broadcast arrays."""
    x, y, z = (np.asarray(axis, np.float32) for axis in (x, y, z))
    x, y = _swayed(body, x, y, z)
    inner = cage(body, x, y, z)
    organs = structures(body, x, y, z)
    bodies, behind, centre = spine(body, x, y, z)
    back = either(bodies + 2.5, behind, 6)
    # Fat fills what is left between the organs: a thin leaf in front, the lungs' tips meeting there.
    leaf = 1.5 + 0.6 * body.mediastinal_fat
    leaf = (
        leaf
        + 0.9 * np.maximum(42 - z, 0) * np.clip(0.6 - y / 40, 0, 1)
        - np.abs(x - 4 * np.sin(z / 40 + body.sway[7]))
    )
    middle = either(either(organs + body.mediastinal_fat, leaf, 22), back, 9)
    above = diaphragm(body, x, y, z)
    _, _, shift = _section(body, z)
    apex = body.height - z - (np.square(np.abs(x) - 0.40 * body.width) + np.square(y - shift - 6)) / 62
    lung = both(both(both(inner, -middle, 7), above, 4), apex * 0.7, 6)
    return {"cage": inner, "organs": organs, "vertebrae": bodies, "behind": back, "above": above, "lung": lung,
            "centre": centre}  # fmt: skip


def lung_depth(body: Body, x, y, z) -> np.ndarray:
    """mm inside the lungs, negative outside."""
    return anatomy(body, x, y, z)["lung"]


def skin_depth(body: Body, x, y, z, inner: np.ndarray) -> np.ndarray:
    """mm below the skin: chest, shoulders and neck."""
    wall = 9 + body.muscle
    behind = np.clip(y / body.depth, -1, 1)
    back = 22 * np.clip(behind, 0, 1) * np.exp(-np.square(x / 85))
    torso = inner + wall + back + body.fat * (1 + 0.25 * np.sin(x / 60 + body.sway[0]))
    if body.female:
        breast = np.square((np.abs(x) - 68) / 52) + np.square((z - 55) / 58)
        torso = torso + np.where(y < 0, (12 + 1.1 * body.fat) * np.clip(1 - breast, 0, 1), 0)
    top = body.height
    torso = both(torso, top + 25 + 0.25 * body.fat - z + 0 * x, 30)
    # Standing, the arms hang; lying, they are raised above the head.
    out, up = (42, -34) if body.upright else (20, 60)
    thick = (54 if body.upright else 42) + 0.5 * body.fat
    arms = np.array([
        (-70, 20, top - 8, -body.width - out, 16, top + up, thick, thick + 6),
        (70, 20, top - 8, body.width + out, 16, top + up, thick, thick + 6),
        (0, 18, top, 0, 8, top + 120, 54 + 0.4 * body.fat, 54 + 0.3 * body.fat),
    ])  # fmt: skip
    if np.max(z) > top - 110:
        torso = either(torso, distance(arms, x, y, z), 25)
    return torso


def tissues(body: Body, x, y, z, parts: dict[str, np.ndarray], pixel: float) -> np.ndarray:
    """HU of the body with its lungs as air sacs only; edges are `pixel` mm wide. Ribs, vessels and airways of the
    lungs are not in it."""
    z = np.asarray(z, np.float32)
    sx, sy = _swayed(body, np.asarray(x, np.float32), np.asarray(y, np.float32), z)

    def share(depth):
        return np.clip(depth / pixel + 0.5, 0, 1)

    def lay(under, depth, value):
        return under + share(depth) * (value - under)

    skin = skin_depth(body, sx, sy, z, parts["cage"])
    hu = lay(np.float32(AIR), skin, SKIN)
    hu = lay(hu, skin - 2, FAT)
    ragged = 2.5 * np.sin(sx / 11 + body.sway[1]) * np.sin(sy / 13 + z / 17)
    flesh = np.maximum(parts["cage"] + 9 + body.muscle + ragged, parts["behind"] + 6)
    hu = lay(hu, np.minimum(skin - 2 - 0.6 * body.fat, flesh), MUSCLE)
    hu = lay(hu, parts["cage"] + 2, FAT)  # between wall and organs
    hu = lay(hu, parts["organs"], BLOOD)
    belly = np.where(sx < 8, LIVER, BLOOD)
    hu = lay(hu, np.minimum(-parts["above"] - 1, parts["cage"]), belly)
    if body.upright or body.sway[2] > 0.5:  # the stomach's bubble
        bubble = 1 - np.square((sx - 62) / 26) - np.square((sy + 6) / 30)
        bubble = 14 * (bubble - np.square((z + body.left_lower + 30) / 15))
        hu = lay(hu, np.minimum(bubble, -parts["above"] - 8), AIR)
    hu = lay(hu, np.minimum(parts["behind"] - 5, skin - 2 - 0.6 * body.fat), MUSCLE)
    disc = np.clip(2 * np.abs(((z / 23.0 + body.sway[3]) % 1) - 0.5) * 6 - 4.6, 0, 1)  # between two vertebrae
    bodies = lay(
        lay(hu, parts["vertebrae"], CORTEX * 0.65), parts["vertebrae"] - 2, MARROW * (1.2 - 0.006 * body.age)
    )
    hu = hu + (bodies - hu) * (1 - 0.8 * disc) * share(parts["vertebrae"])
    canal = 8 - np.hypot(sx, sy - parts["centre"] - 25)
    arch = np.minimum(13 - np.hypot(sx, sy - parts["centre"] - 25), 0.9 - disc)
    hu = lay(lay(hu, arch, CORTEX * 0.55), canal, WATER + 25)
    spinous = np.minimum(3.5 - np.abs(sx), 14 - np.abs(sy - parts["centre"] - 46)) - 2 * disc
    hu = lay(hu, spinous, 300.0)
    breastbone = np.minimum(16 - np.abs(sx), 5 - np.abs(parts["cage"] + 8))
    breastbone = np.where((sy < 0) & (z > 30) & (z < body.height - 30), breastbone, -9.0)
    hu = lay(hu, breastbone, MARROW)
    airway = distance(body.airway, sx, sy, z) if np.min(z) < 400 else -9.0
    hu = lay(hu, airway, AIR)
    gravity = (sy if not body.upright else -0.5 * z) / 90
    depth = parts["lung"]
    return lay(hu, depth, body.lung + 28 * gravity)


# --- tubes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trees:
    """What runs in the lungs: tubes of vessels, of airways' walls and of the air in them."""

    vessels: np.ndarray
    walls: np.ndarray
    lumens: np.ndarray


def fissures(body: Body, x, y, z) -> np.ndarray:
    """Distance in mm from the nearest fissure, in the frame of `anatomy`: positive everywhere."""
    tall = body.height / FULL_HEIGHT
    slope = 1.15 * tall
    bowl = 6 * np.sin(x / 28 + body.sway[4])
    shift = np.where(x < 0, 8.0, -4.0)
    oblique = np.abs((z - 78 * tall + shift) - slope * (y + bowl)) / np.hypot(1, slope)
    level = np.abs(z - 84 * tall - 6 * np.sin(y / 30 + x / 40 + body.sway[5]))
    level = np.where((x < 0) & (z - 78 * tall + shift > slope * (y + bowl)), level, 99.0)
    return np.minimum(oblique, level)


def lobe_lower(body: Body, x, y, z) -> np.ndarray:
    """Whether a point lies behind and below the oblique fissure."""
    tall = body.height / FULL_HEIGHT
    bowl = 6 * np.sin(x / 28 + body.sway[4])
    return (z - 78 * tall + np.where(x < 0, 8.0, -4.0)) < 1.15 * tall * (y + bowl)


def points_in_lungs(body: Body, numbers: np.random.Generator, count: int, depth: float) -> np.ndarray:
    """Random points (n, 3) that lie at least `depth` mm inside; about `count` of them."""
    low = np.array([-body.width, -body.depth, -100.0])
    high = np.array([body.width, 1.3 * body.depth, body.height])
    tried = numbers.uniform(low, high, (count * 4, 3))
    inside = lung_depth(body, *tried.T) > depth
    return tried[inside][:count]


def trees(body: Body, leaves: int = 6000) -> Trees:
    """Vessels and airways of both lungs; `leaves` is how many ends arteries and veins have in all."""
    numbers = np.random.default_rng(np.random.SeedSequence([*body.seed, 72]))
    points = points_in_lungs(body, numbers, leaves, 2.5)
    points = points[fissures(body, *points.T) > 3]
    vein = numbers.random(len(points)) < 0.42
    left = points[:, 0] > 0
    parts = [points[~left & ~vein], points[left & ~vein], points[~left & vein], points[left & vein]]
    leaf = numbers.uniform(0.27, 0.36) * (6000 / leaves) ** 0.42
    arteries = grow(numbers, body.roots[:2], parts[:2], leaf)
    veins = grow(numbers, body.roots[2:], parts[2:], leaf * 1.05)
    # An airway runs beside each larger artery, as wide as it.
    beside = arteries[arteries[:, 6] > 1.15].copy()
    aside = np.sign(beside[:, :1]) * np.array([[-0.55, 0.75, -0.35]])
    beside[:, :3] += aside * beside[:, 6:7] * 2.0
    beside[:, 3:6] += aside * beside[:, 7:8] * 2.0
    lumens = beside.copy()
    beside[:, 6:] *= 0.84
    lumens[:, 6:] = np.maximum(lumens[:, 6:] * 0.84 - 0.5 - 0.1 * lumens[:, 6:], 0.2)
    return Trees(np.concatenate([arteries, veins]), beside, lumens)


def cage_bones(body: Body) -> dict[str, np.ndarray]:
    """Ribs, their cartilage, collar bones and shoulder blades as tubes of the bone's outer radius."""
    numbers = np.random.default_rng(np.random.SeedSequence([*body.seed, 73]))
    ribs, cartilage = [], []
    spread = (body.height + 75) / 10.6
    steep = numbers.uniform(0.85, 1.15)
    for side in (-1, 1):
        for k in range(11):
            start = body.height + 12 - k * spread  # height of its head
            reach = np.pi * (0.86 - 0.02 * max(k - 6, 0) ** 1.6)
            turn = np.linspace(0.13, reach, 26)
            drop = (36 + 13 * min(k, 7)) * steep
            z = start + 4 * np.sin(np.clip(turn * 2, 0, np.pi)) - drop * np.power(turn / np.pi, 1.35)
            wide, deep, middle = _section(body, np.minimum(z, body.height - 0.06 * body.height))
            bulge = 5.0
            narrow = (0.86, 0.97)[k] if k < 2 else 1.0
            x = side * narrow * (wide + bulge) * np.power(np.sin(np.clip(turn, 0, np.pi)), 0.93)
            y = middle + (deep + bulge) * np.cos(turn)
            line = np.stack([x, y, z], 1) + numbers.normal(0, 0.5, (26, 3)).cumsum(0) * 0.35
            thick = np.interp(turn, [0.1, 0.5, 2, 3], [4.6, 6.2, 5.8, 6.0]) * (0.85 if k == 0 else 1)
            ribs.append(chain(line, thick))
            if k < 8:
                end = line[-1]
                inner = np.array([side * 14, middle[-1] - deep[-1] - 5, end[2] + 4 + 9 * max(k - 2, 0)])
                steps = np.linspace(0, 1, 6)[:, None]
                cartilage.append(chain(end + steps * (inner - end), 6.0))
    bones = []
    top = body.height
    for side in (-1, 1):
        lift = numbers.normal(0, 5)
        s = np.linspace(0, 1, 14)
        x = side * (16 + (body.width + 18) * s)
        y = -0.52 * body.depth + 52 * s**1.2 + 9 * np.sin(2 * np.pi * s)
        z = top - 46 + 44 * s + lift * s + 4 * np.sin(2 * np.pi * s)
        bones.append(chain(np.stack([x, y, z], 1), np.interp(s, [0, 0.15, 0.8, 1], [10, 6.5, 6.5, 8])))
        corners = [(0.62, 62, 20), (0.70, 86, -115), (1.02, 60, -22), (1.20, 40, -16)]
        blade = np.array([(side * body.width * c[0], c[1] + 0.1 * body.depth, top + c[2]) for c in corners])
        bones.append(chain(blade[[0, 1]], 3.0))
        bones.append(chain(blade[[1, 2, 3]], np.array([4.5, 6.5, 10.0])))
        bones.append(chain(blade[[0, 3]], 5.0))
        if body.upright:
            bones.append(
                np.array(
                    [[side * (body.width + 46), 20, top - 26, side * (body.width + 76), 20, top - 160, 23, 13]]
                )
            )  # arm
    return {
        "ribs": np.concatenate(ribs),
        "cartilage": np.concatenate(cartilage),
        "shoulders": np.concatenate(bones),
    }
