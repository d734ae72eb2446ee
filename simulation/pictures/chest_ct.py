"""Axial CT slices of simulated chests for the study `covid-ct`: ground glass and its like, other disease, or none.

As in the published sets most pictures show the lungs alone, cut out by a threshold and cropped to them, as
programs do that often lose what is dense; the others show the whole body. Scanner, window and level are drawn
alike for both classes.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.fft import irfft2, rfft2
from scipy.ndimage import binary_fill_holes, distance_transform_edt, gaussian_filter, label

from simulation.pictures.lung_disease import SOLID, Findings, Ragged, change, draw_findings, fissure_lines
from simulation.pictures.thorax import AIR, BLOOD, Body, Trees, anatomy, cage_bones, draw_body, tissues, trees
from simulation.pictures.tubes import cut

COARSE = 2.5  # mm: surfaces are smooth, so they are worked out on this grid and interpolated
WINDOWS = ((-1350, 150), (-1150, 350), (-1000, 400), (-1400, 200), (-1250, 250))  # HU shown black and white


@dataclass(frozen=True)
class Scanner:
    """How one examination was made and exported."""

    pixel: float  # mm
    thickness: float  # mm
    blur: float  # mm, standard deviation
    sharpen: float
    noise: float  # HU
    streaks: float  # HU
    window: tuple[float, float]
    masked: bool
    threshold: float  # HU below which the mask takes a pixel for lung
    closing: float  # mm
    rim: float  # mm that the mask loses at its rim
    quality: int  # of its JPEG


def draw_scanner(numbers: np.random.Generator) -> Scanner:
    """From thick smooth slices to thin sharp ones."""
    between = numbers.uniform
    thin = numbers.random() < 0.5
    low, high = WINDOWS[int(numbers.integers(len(WINDOWS)))]
    return Scanner(
        pixel=between(0.68, 0.92),
        thickness=between(0.8, 2) if thin else between(3, 8),
        blur=between(0.35, 0.6) if thin else between(0.6, 1.1),
        sharpen=between(0, 1.6) if thin else between(0, 0.4),
        noise=between(15, 75) if thin else between(5, 22),
        streaks=max(0.0, numbers.normal(-4, 12)),
        window=(low + numbers.normal() * 30, high + numbers.normal() * 40),
        masked=bool(numbers.random() < 0.75),
        threshold=between(-480, -250),
        closing=between(2.5, 7),
        rim=between(0, 1.4),
        quality=int(numbers.integers(70, 97)),
    )


def _finer(field: np.ndarray, coarse: np.ndarray, fine: np.ndarray, axis: int) -> np.ndarray:
    """Linear interpolation along an axis of even steps."""
    place = np.clip((fine - coarse[0]) / (coarse[1] - coarse[0]), 0, len(coarse) - 1.001)
    whole = place.astype(int)
    shape = [1, 1]
    shape[axis] = len(fine)
    part = (place - whole).astype(np.float32).reshape(shape)
    return np.take(field, whole, axis) * (1 - part) + np.take(field, whole + 1, axis) * part


def _parts(body: Body, x: np.ndarray, y: np.ndarray, z: float) -> dict[str, np.ndarray]:
    coarse_x, coarse_y = np.arange(x[0], x[-1] + COARSE, COARSE), np.arange(y[0], y[-1] + COARSE, COARSE)
    parts = anatomy(body, coarse_x[None], coarse_y[:, None], z)
    shape = (len(coarse_y), len(coarse_x))
    full = {name: np.broadcast_to(field, shape) for name, field in parts.items()}
    return {name: _finer(_finer(field, coarse_x, x, 1), coarse_y, y, 0) for name, field in full.items()}


@dataclass(frozen=True)
class Slice:
    """HU on a grid before the scanner adds anything, and what is known of them."""

    hu: np.ndarray
    lung: np.ndarray  # share of each pixel that is lung, diseased or not
    diseased: np.ndarray
    added: np.ndarray  # HU that the findings added


def _bones(body: Body, hu: np.ndarray, x: np.ndarray, y: np.ndarray, z: float) -> np.ndarray:
    """Ribs, collar bones and shoulder blades laid in: a hard shell, marrow inside."""
    tubes = np.concatenate(list(cage_bones(body).values()))
    shell = cut(tubes, x, y, z)
    tubes[:, 6:] -= 1.6
    return hu + shell * (640 - hu) - 380 * cut(tubes, x, y, z)


def render(
    body: Body,
    branches: Trees,
    findings: Findings,
    x: np.ndarray,
    y: np.ndarray,
    z: float,
    thickness: float,
    whole: bool,
) -> Slice:
    """A slice through the body at z, a mean over its thickness."""
    layers = int(np.clip(np.ceil(thickness / 1.5), 1, 5))
    levels = z + (np.arange(layers) - (layers - 1) / 2) * thickness / layers
    pixel = float(x[1] - x[0])
    noise = Ragged(body.seed)
    sums = [np.zeros((len(y), len(x)), np.float32) for _ in range(4)]
    around: np.ndarray | float = BLOOD
    for level in levels:
        parts = _parts(body, x, y, level)
        if whole and level == levels[0]:
            around = tissues(
                body, x[None], y[:, None], z, parts | {"lung": np.full_like(parts["lung"], -9)}, pixel
            )
            around = _bones(body, around, x, y, z)
        depth = parts["lung"]
        lung = np.clip(depth / pixel + 0.5, 0, 1)
        inside = lung > 0
        down, across = np.nonzero(inside)
        points = np.stack([x[across], y[down], np.full(len(down), level)], 1).astype(np.float32)
        gravity = 28 * points[:, 1] / 90
        texture = 14 * noise(points, 3.0) + 12 * noise(points, 22.0, 2)
        air = body.lung + gravity + texture + fissure_lines(body, *points.T)
        added, solid, diseased = change(findings, body, points, depth[inside], noise)
        tissue = np.clip(air + added, AIR, SOLID)
        tissue = tissue + solid * (SOLID - tissue)
        vessels = np.maximum(cut(branches.vessels, x, y, level), cut(branches.walls, x, y, level))[inside]
        tissue = tissue + vessels * (BLOOD - tissue)
        tissue = tissue + cut(branches.lumens, x, y, level)[inside] * (AIR + 30 - tissue)
        hu = np.full((len(y), len(x)), 0, np.float32) + around
        hu[inside] += lung[inside] * (tissue - hu[inside])
        sums[0] += hu
        sums[1] += lung
        sums[2][inside] += diseased * lung[inside]
        sums[3][inside] += (added + solid * (SOLID - air)) * lung[inside]
    return Slice(*(part / layers for part in sums))


def _noise(numbers: np.random.Generator, shape: tuple[int, int], pixel: float, blur: float) -> np.ndarray:
    """Noise as filtered back-projection leaves it: little in the slow waves, of deviation 1."""
    white = rfft2(numbers.normal(size=shape).astype(np.float32))
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]) / pixel
    coloured = irfft2(white * np.sqrt(frequency) * np.exp(-np.square(np.pi * blur * frequency) * 1.2), shape)
    return (coloured / coloured.std()).astype(np.float32)


def _scan(cut_out: Slice, scanner: Scanner, numbers: np.random.Generator) -> np.ndarray:
    """HU as the scanner gives them."""
    sigma = scanner.blur / scanner.pixel
    hu = gaussian_filter(cut_out.hu, sigma)
    hu = hu + scanner.sharpen * (hu - gaussian_filter(hu, 1.3))
    hu = hu + scanner.noise * _noise(numbers, hu.shape, scanner.pixel, scanner.blur)
    if scanner.streaks:
        lines = gaussian_filter(numbers.normal(size=hu.shape).astype(np.float32), (0.6, 9))
        hu = hu + scanner.streaks * lines / lines.std()
    return hu


def lung_mask(cut_out: Slice, scanner: Scanner) -> np.ndarray:
    """The lungs as a threshold finds them, closed over vessels; what is dense at their rim is lost."""
    smooth = gaussian_filter(cut_out.hu, 0.9)
    found = (smooth < scanner.threshold) & (cut_out.lung > 0.5)
    reach = scanner.closing / scanner.pixel
    closed = distance_transform_edt(distance_transform_edt(~found) <= reach) > reach
    closed = binary_fill_holes(closed | found)
    closed = distance_transform_edt(closed) * scanner.pixel > scanner.rim
    pieces, count = label(closed)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    return (sizes * scanner.pixel**2 > 60)[pieces]


def _export(grey: np.ndarray, quality: int) -> np.ndarray:
    """8 bits through a JPEG, as published pictures went."""
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _grid(body: Body, whole: bool, pixel: float, numbers: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    margin = numbers.uniform(45, 75) if whole else 18.0
    wide, back = body.width + margin, 1.22 * body.depth + margin
    front = -body.depth - margin
    return (np.arange(-wide, wide, pixel, dtype=np.float32), np.arange(front, back, pixel, dtype=np.float32))


def subject(seed: tuple[int, ...], label: str) -> Iterator[tuple[np.ndarray, dict[str, object]]]:
    """The slices of one person, 8 bits grey, each with its truth."""
    body = draw_body(seed)
    numbers = np.random.default_rng(np.random.SeedSequence([*seed, 94]))
    scanner = draw_scanner(numbers)
    count = int(numbers.integers(2, 7))
    heights = np.sort(0.9 * numbers.beta(1.6, 2.0, count) - 0.1)  # of the lungs above the right dome
    levels = heights * body.height
    findings, branches = draw_findings(body, label, levels), trees(body)
    x, y = _grid(body, not scanner.masked, scanner.pixel, numbers)
    for height, level in zip(heights, levels, strict=True):
        one = render(body, branches, findings, x, y, float(level), scanner.thickness, not scanner.masked)
        hu = _scan(one, scanner, numbers)
        low, high = scanner.window
        grey = np.clip((hu - low) / (high - low) * 255, 0, 255)
        if scanner.masked:
            mask = lung_mask(one, scanner)
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            if len(rows) < 20 or len(columns) < 20:  # disease has hidden all that a threshold could find
                mask = one.lung > 0.5
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            grey = (grey * mask)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        lung = max(float(one.lung.sum()), 1.0)
        sick = one.diseased > 0.5
        truth: dict[str, object] = {
            "class": label,
            "disease": findings.disease,
            "age": round(body.age),
            "sex": "F" if body.female else "M",
            "inflation": round(body.inflation, 2),
            "height": round(float(height), 3),
            "diseased_share": round(float(one.diseased.sum()) / lung, 4),
            "added_hu": round(float(one.added[sick].mean()), 1) if sick.any() else 0.0,
            "pixel_mm": round(scanner.pixel, 3),
            "thickness_mm": round(scanner.thickness, 2),
            "noise_hu": round(scanner.noise, 1),
            "window_low": round(low),
            "window_high": round(high),
            "masked": int(scanner.masked),
        }
        yield _export(np.round(grey).astype(np.uint8), scanner.quality), truth
