"""What disease adds to the lungs of a thorax: patches, lobes, fluid, cysts and lines, drawn from a seed.

A finding changes air-filled lung in two ways: it adds HU (ground glass, or less than nothing in emphysema), and it
makes a share of it solid. `change` gives both at any points of the lungs.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import cKDTree

from simulation.pictures.thorax import Body, anatomy, fissures, lobe_lower, points_in_lungs

SOLID = 35.0  # HU of lung without air
NO_DISEASE = "none"
OTHERS = {  # what lungs without COVID-19 show, and how often
    NO_DISEASE: 0.42, "nodules": 0.11, "mass": 0.06, "lobar pneumonia": 0.11, "effusion": 0.05, "emphysema": 0.08,
    "fibrosis": 0.06, "oedema": 0.06, "atelectasis": 0.05,
}  # fmt: skip


@dataclass(frozen=True)
class Patch:
    """A ball or flattened ball of changed lung, ragged by noise."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]  # along the columns of `axes`, mm
    axes: np.ndarray
    ground_glass: float  # HU added inside
    solid: float = 0.0  # share made solid in its core
    ragged: float = 0.3  # of its radius
    edge: float = 0.4  # of its radius, over which it fades
    mottled: float = 0.3  # share by which its density varies inside
    paving: float = 0.0  # HU of thickened lines between lobules
    hollow: float = 0.0  # share by which its middle is clearer, as in a reversed halo


@dataclass(frozen=True)
class Findings:
    """All that is wrong with a pair of lungs."""

    disease: str
    patches: tuple[Patch, ...] = ()
    lobes: tuple[tuple[str, int, float], ...] = ()  # lower or upper, side, how full
    fluid: tuple[float, float] = (-999.0, -999.0)  # y behind which fluid lies, right and left
    oedema: float = 0.0  # HU about the hila
    fibrosis: float = 0.0
    dependent: float = 0.0  # HU in the lowest few mm, as in anybody lying down
    seed: tuple[int, ...] = field(default=(0,))


class Ragged:
    """Smooth noise of mean 0 and deviation 1 at any place, the same for a seed."""

    def __init__(self, seed: tuple[int, ...]):
        numbers = np.random.default_rng(np.random.SeedSequence([*seed, 91]))
        grid = gaussian_filter(numbers.normal(size=(32, 32, 32)), 0.7, mode="wrap")
        self.grid = (grid / grid.std()).astype(np.float32)

    def __call__(self, points: np.ndarray, size: float, shift: float = 0.0) -> np.ndarray:
        """At points (n, 3); `size` is about the width in mm of a bump."""
        places = (points.T / size + 7.3 * shift + 16) % 31  # within the grid, its seam is out of sight
        return map_coordinates(self.grid, places, order=1, mode="wrap")


def _smooth(share: np.ndarray) -> np.ndarray:
    share = np.clip(share, 0, 1)
    return share * share * (3 - 2 * share)


def within(patch: Patch, points: np.ndarray, noise: Ragged) -> np.ndarray:
    """How far points (n, 3) belong to the patch, 0 to 1."""
    away = (points - np.asarray(patch.centre)) @ patch.axes / np.asarray(patch.radii)
    distance = np.linalg.norm(away, axis=1)
    share = np.zeros(len(points), np.float32)
    near = distance < 1 + 2.5 * patch.ragged
    size = max(4.0, 0.45 * float(np.mean(patch.radii)))
    wobble = patch.ragged * (0.7 * noise(points[near], size) + 0.3 * noise(points[near], size / 3, 1))
    share[near] = _smooth((1 - distance[near] - wobble) / patch.edge + 0.5)
    return share


def walls_of_cells(points: np.ndarray, size: float, thick: float, seed: tuple[int, ...]) -> np.ndarray:
    """1 on the walls between cells of about `size` mm, 0 inside them: septa of lobules, honeycombs."""
    if not len(points):
        return np.zeros(0, np.float32)
    numbers = np.random.default_rng(np.random.SeedSequence([*seed, 92]))
    low, high = points.min(0) - 2 * size, points.max(0) + 2 * size
    low, high = np.floor(low / size) * size, np.ceil(high / size) * size
    axes = [np.arange(a, b, size) for a, b in zip(low, high, strict=True)]
    seeds = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    seeds = seeds + numbers.uniform(-0.5, 0.5, seeds.shape) * size
    near, _ = cKDTree(seeds).query(points, k=2)
    return np.clip(1.2 - (near[:, 1] - near[:, 0]) / thick, 0, 1).astype(np.float32)


def change(
    findings: Findings, body: Body, points: np.ndarray, depth: np.ndarray, noise: Ragged
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At points (n, 3) of the lungs, `depth` mm inside: HU added, the share made solid, the share diseased."""
    added, solid = np.zeros(len(points), np.float32), np.zeros(len(points), np.float32)
    diseased = np.zeros(len(points), np.float32)
    for k, patch in enumerate(findings.patches):
        reach = 1.8 * max(patch.radii)
        here = np.flatnonzero((np.abs(points - np.asarray(patch.centre)) < reach).all(1))
        if not len(here):
            continue
        mine = points[here]
        share = within(patch, mine, noise)
        level = 1 + patch.mottled * noise(mine, 5.0, k)
        if patch.hollow:
            away = np.linalg.norm((mine - np.asarray(patch.centre)) @ patch.axes / np.asarray(patch.radii), axis=1)
            level = level * (1 - patch.hollow * _smooth((0.75 - away) / 0.3))
        more = share * patch.ground_glass * level
        if patch.paving:
            more = more + share * patch.paving * walls_of_cells(mine, 7.0, 1.1, (*findings.seed, k))
        # Where patches overlap the denser one shows.
        added[here] = np.where(np.abs(more) > np.abs(added[here]), more, added[here])
        if patch.solid:
            core = _smooth(2.2 * share - 0.9 + 0.35 * noise(mine, 7.0, k + 0.5)) * share
            solid[here] = np.maximum(solid[here], patch.solid * core)
        diseased[here] = np.maximum(diseased[here], share)
    x, y, z = points.T
    for lobe, side, full in findings.lobes:
        member = lobe_lower(body, x, y, z) == (lobe == "lower")
        share = (
            member * (x * side > 0) * _smooth(full + 0.45 * noise(points, 24.0, 3) + 0.2 * noise(points, 6.0, 4))
        )
        solid, added = np.maximum(solid, 0.97 * share), np.maximum(added, 260 * np.sqrt(share))
        diseased = np.maximum(diseased, share)
    for side, surface in zip((-1, 1), findings.fluid, strict=True):
        if surface > -900:
            meniscus = surface + 0.0022 * np.square(np.abs(x) - 60) - 12 * np.exp(-depth / 6)
            share = (x * side > 0) * _smooth((y - meniscus) / 4 + 0.5)
            near = (x * side > 0) * _smooth((y - meniscus + 16) / 16)  # lung pressed together in front of it
            solid, added = np.maximum(solid, 0.98 * share), np.maximum(added, 330 * near)
            diseased = np.maximum(diseased, share)
    if findings.oedema:
        hilum = np.minimum(*(np.linalg.norm(points - root, axis=1) for root in body.roots[:2]))
        share = np.exp(-np.square(hilum / 62)) * (1 + 0.25 * noise(points, 12.0, 5)) + 0.3 * np.clip(y / 80, 0, 1)
        added = added + findings.oedema * share
        septa = walls_of_cells(points, 15.0, 0.9, findings.seed) * np.clip(1.3 - depth / 22, 0, 1)
        added = np.maximum(added, 330 * septa)
        diseased = np.maximum(diseased, np.clip(share, 0, 1))
    if findings.fibrosis:
        low = _smooth((0.55 * body.height - z) / 60 + 0.4 * np.clip(y / 60, -1, 1))
        share = findings.fibrosis * low * _smooth((17 - depth) / 13 + 0.5 * noise(points, 16.0, 6))
        here = share > 0.05
        comb = walls_of_cells(points[here], 6.5, 2.0, findings.seed)
        fine = walls_of_cells(points[here], 3.5, 1.2, (*findings.seed, 7))
        strong = _smooth(share[here] * 2.2 - 1.1)
        added[here] += share[here] * 120 + 330 * share[here] * fine * (1 - strong)
        added[here] += strong * (620 * comb - 230)
        diseased = np.maximum(diseased, share)
    if findings.dependent:
        added = added + findings.dependent * np.clip(1 - depth / 9, 0, 1) * _smooth((y - 25) / 35)
    return added, solid, diseased


# --- drawing them ------------------------------------------------------------------------------------------


def _axes(numbers: np.random.Generator, body: Body, centre: np.ndarray) -> np.ndarray:
    """A frame at a place, its first column towards the chest wall, the others turned at random."""
    first = (centre - [np.sign(centre[0]) * 0.45 * body.width, 0, centre[2]]) / [body.width, body.depth, 1]
    first = first / max(float(np.linalg.norm(first)), 1e-3)
    frame, _ = np.linalg.qr(np.column_stack([first, numbers.normal(size=(3, 2))]))
    return frame.astype(np.float32)


def _patch(numbers, body, centre, size, flat=1.0, **more) -> Patch:
    stretch = np.exp(numbers.normal(0, 0.22, 3))
    a, b, c = (float(mm) for mm in size * np.array([flat, 1, 1]) * stretch)
    place = (float(centre[0]), float(centre[1]), float(centre[2]))
    return Patch(place, (a, b, c), _axes(numbers, body, np.asarray(centre)), **more)


def _places(numbers, body, levels, count, weight) -> np.ndarray:
    """Places in the lungs near the levels that are to be shown, chosen by weight(points, depths)."""
    points = points_in_lungs(body, numbers, 700, 2.0)
    points[:, 2] = numbers.choice(levels, len(points)) + numbers.normal(0, 6, len(points))
    depth = anatomy(body, *points.T)["lung"]
    points, depth = points[depth > 1], depth[depth > 1]
    chance = weight(points, depth) + 1e-9
    chosen = numbers.choice(len(points), min(count, len(points)), replace=False, p=chance / chance.sum())
    return points[chosen]


def _covid(numbers: np.random.Generator, body: Body, levels: np.ndarray) -> tuple[Patch, ...]:
    """Ground glass at the periphery of both lungs, more behind and below; some of it paved or solid."""
    severity = numbers.beta(1.3, 2.2)
    count = 1 + int(numbers.poisson(1 + 14 * severity))
    crazy, late = numbers.random() < 0.35, numbers.random() < 0.4

    def weight(points, depth):
        return np.exp(-depth / 11) * np.exp(points[:, 1] / 45) * np.exp(-0.004 * points[:, 2])

    patches = []
    # Every slice that carries the label shows something of it.
    shown = [_places(numbers, body, level, 1, weight) for level in levels[:, None]]
    for centre in np.concatenate([*shown, _places(numbers, body, levels, count, weight)]):
        size = float(np.clip(numbers.lognormal(np.log(11 + 12 * severity), 0.4), 5, 42))
        patches.append(_patch(
            numbers, body, centre, size, numbers.uniform(0.5, 0.95), ground_glass=numbers.uniform(100, 360),
            solid=numbers.uniform(0.3, 0.95) if numbers.random() < (0.45 if late else 0.1) else 0.0,
            ragged=numbers.uniform(0.2, 0.45), edge=numbers.uniform(0.35, 1.0), mottled=numbers.uniform(0.15, 0.5),
            paving=numbers.uniform(120, 300) if crazy and numbers.random() < 0.7 else 0.0,
            hollow=numbers.uniform(0.4, 0.8) if numbers.random() < 0.08 else 0.0,
        ))  # fmt: skip
    return tuple(patches)


def _anywhere(points, depth):
    return np.ones(len(points))


def _nodules(numbers, body, levels) -> tuple[Patch, ...]:
    places = _places(numbers, body, levels, 1 + int(numbers.geometric(0.25)), _anywhere)
    return tuple(
        _patch(numbers, body, centre, float(np.clip(numbers.lognormal(1.5, 0.45), 2, 14)), ground_glass=60.0,
               solid=1.0, ragged=0.12, edge=0.2, mottled=0.0)
        for centre in places
    )  # fmt: skip


def _mass(numbers, body, levels) -> tuple[Patch, ...]:
    (centre,) = _places(numbers, body, levels, 1, _anywhere)
    size = numbers.uniform(9, 32)
    core = _patch(numbers, body, centre, size, ground_glass=500.0, solid=1.0, ragged=0.22, edge=0.2, mottled=0.0)
    rays = []
    for _ in range(int(numbers.integers(0, 9))):
        way = numbers.normal(size=3)
        place = centre + way / np.linalg.norm(way) * size * 1.2
        axes, _ = np.linalg.qr(np.column_stack([way, numbers.normal(size=(3, 2))]))
        rays.append(Patch(tuple(place), (0.6 * size, 1.4, 1.4), axes, 420.0, 0.5, 0.1, 0.5, 0.0))
    return core, *rays


def _emphysema(numbers, body) -> tuple[Patch, ...]:
    points = points_in_lungs(body, numbers, int(numbers.integers(250, 900)), 1.0)
    keep = numbers.random(len(points)) < np.clip(0.25 + points[:, 2] / body.height, 0.1, 1)
    size = numbers.uniform(2, 5)
    return tuple(
        _patch(numbers, body, centre, float(np.clip(numbers.lognormal(np.log(size), 0.5), 1.2, 24)),
               ground_glass=-110.0, ragged=0.2, edge=0.4, mottled=0.0)
        for centre in points[keep]
    )  # fmt: skip


def _bands(numbers, body, levels) -> tuple[Patch, ...]:
    places = _places(numbers, body, levels, int(numbers.integers(1, 4)), lambda p, d: np.exp(-0.01 * p[:, 2]))
    patches = []
    for centre in places:
        axes, _ = np.linalg.qr(numbers.normal(size=(3, 3)) * [0.3, 0.3, 1.0] + [[0, 1, 0], [1, 0, 0], [0, 0, 1]])
        radii = (numbers.uniform(18, 40), numbers.uniform(1.5, 4.5), numbers.uniform(12, 25))
        patches.append(Patch(tuple(centre), radii, axes, 300.0, 0.95, 0.15, 0.35, 0.1))
    return tuple(patches)


def draw_findings(body: Body, label: str, levels: np.ndarray) -> Findings:
    """What is wrong with a person of a class of `covid-ct`, where the slices at these levels (z in mm) show it."""
    numbers = np.random.default_rng(np.random.SeedSequence([*body.seed, 93]))
    dependent = float(numbers.uniform(40, 200)) if numbers.random() < 0.3 else 0.0
    disease = str(numbers.choice(list(OTHERS), p=list(OTHERS.values())))
    if label == "nCoV":
        return Findings("COVID-19", _covid(numbers, body, levels), dependent=dependent, seed=body.seed)
    sides = [(-1,), (1,), (-1, 1)][int(numbers.integers(3))]
    patches: tuple[Patch, ...] = ()
    lobes: tuple[tuple[str, int, float], ...] = ()
    fluid = [-999.0, -999.0]
    if disease == "nodules":
        patches = _nodules(numbers, body, levels)
    elif disease == "mass":
        patches = _mass(numbers, body, levels)
    elif disease == "emphysema":
        patches = _emphysema(numbers, body)
    elif disease == "atelectasis":
        patches = _bands(numbers, body, levels)
    elif disease == "lobar pneumonia":
        lobes = ((str(numbers.choice(["lower", "upper"])), sides[0], float(numbers.uniform(0.35, 1.2))),)
    if disease == "effusion" or (disease == "oedema" and numbers.random() < 0.6):
        for side in sides:
            fluid[(side + 1) // 2] = float(body.depth * numbers.uniform(0.15, 0.85))
    return Findings(
        disease, patches, lobes, (fluid[0], fluid[1]),
        oedema=float(numbers.uniform(120, 330)) if disease == "oedema" else 0.0,
        fibrosis=float(numbers.uniform(0.5, 1)) if disease == "fibrosis" else 0.0,
        dependent=dependent, seed=body.seed,
    )  # fmt: skip


def fissure_lines(body: Body, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """HU that the leaves between the lobes add, under a millimetre thick."""
    seen = float(np.clip(130 + 90 * body.sway[7], 0, 300))
    return seen * np.clip(1 - fissures(body, x, y, z) / 0.75, 0, 1)
