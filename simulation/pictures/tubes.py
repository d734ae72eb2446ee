"""Round tubes in millimetres: how a tree of them grows, and how they are cut by a plane or cast as a shadow.

A set of tubes is an array of rows (x, y, z, x, y, z, radius, radius): two ends and the radius at each.
"""

import numpy as np
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.special import j1

BRANCHING = 0.42  # a branch's radius is the leaf's times its leaves to this power, close to Murray's law
WAVES = np.linspace(0, 400, 8001)
DISC = np.append(1.0, 2 * j1(WAVES[1:]) / WAVES[1:])  # a disc of area 1 at a frequency times its circumference
PATCHES = (8, 16, 32, 64, 128, 256)  # pixels: the squares in which cut tubes are drawn, by what they need


def chain(points: np.ndarray, radius: float | np.ndarray) -> np.ndarray:
    """One bent tube through the points (n, 3)."""
    radii = np.broadcast_to(np.asarray(radius, float), len(points))
    return np.column_stack([points[:-1], points[1:], radii[:-1], radii[1:]])


def grow(numbers: np.random.Generator, roots: np.ndarray, leaves: list[np.ndarray], leaf: float) -> np.ndarray:
    """Trees from each root to its leaves: every branch aims at the middle of what it supplies, then parts in two.

    The last column but one of the result is followed by no more than its own radius: rows stand in the order of
    generations, trunk first.
    """
    points = np.concatenate(leaves).astype(float)  # (n, 3)
    group = np.repeat(np.arange(len(roots)), [len(part) for part in leaves])
    nodes, upper = np.asarray(roots, float), None
    rows = []
    while len(points):
        count = np.bincount(group, minlength=len(nodes)).astype(float)
        sums = [np.bincount(group, points[:, axis], len(nodes)) for axis in range(3)]
        middle = np.stack(sums, 1) / np.maximum(count, 1)[:, None]  # (groups, 3)
        single = count[:, None] == 1
        ahead = np.where(single, 1.0, numbers.uniform(0.3, 0.55, (len(nodes), 1)))
        way = middle - nodes
        length = np.linalg.norm(way, axis=1, keepdims=True)
        ends = nodes + ahead * way + np.where(single, 0, 0.05) * length * numbers.normal(size=nodes.shape)
        bend = (nodes + ends) / 2 + 0.05 * ahead * length * numbers.normal(size=nodes.shape)
        radius = leaf * count**BRANCHING
        start = radius if upper is None else np.minimum(upper, radius * 1.25)
        alive = count > 0
        half = (start + radius) / 2
        rows.append(np.column_stack([nodes, bend, start, half])[alive])
        rows.append(np.column_stack([bend, ends, half, radius])[alive])
        # Each group parts across a slanting direction, more likely a long one.
        apart = points - middle[group]
        spread = np.stack([np.bincount(group, apart[:, axis] ** 2, len(nodes)) for axis in range(3)], 1)
        across = spread**0.75 * numbers.normal(size=spread.shape)  # (groups, 3)
        side = (apart * across[group]).sum(1) > 0
        going_on = count[group] > 1
        group, side, points = group[going_on], side[going_on], points[going_on]
        used, group = np.unique(group * 2 + side, return_inverse=True)
        nodes, upper = ends[used // 2], radius[used // 2]
    return np.concatenate(rows) if rows else np.zeros((0, 8))


def distance(tubes: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray | float) -> np.ndarray:
    """mm that a point lies inside the nearest tube (negative outside); x, y and z are broadcast."""
    shape = np.broadcast_shapes(np.shape(x), np.shape(y), np.shape(z))
    inside = np.full(shape, -1e3, np.float32)
    for tube in tubes.astype(np.float32):
        np.maximum(inside, _inside(tube, x, y, z), out=inside)
    return inside


def _inside(tube, x, y, z):
    ax, ay, az, bx, by, bz, start, end = tube
    dx, dy, dz = bx - ax, by - ay, bz - az
    along = ((x - ax) * dx + (y - ay) * dy + (z - az) * dz) / np.maximum(dx * dx + dy * dy + dz * dz, 1e-6)
    along = np.clip(along, 0, 1)
    apart = (x - ax - along * dx) ** 2 + (y - ay - along * dy) ** 2 + (z - az - along * dz) ** 2
    return start + along * (end - start) - np.sqrt(apart)


def cut(tubes: np.ndarray, x: np.ndarray, y: np.ndarray, z: float) -> np.ndarray:
    """How much of each pixel lies in a tube, 0 to 1, where the plane at z cuts them; x and y are evenly spaced."""
    pixel = float(x[1] - x[0])
    picture = np.zeros((len(y), len(x)), np.float32)
    reach = tubes[:, 6:].max(1) + pixel
    near = (np.minimum(tubes[:, 2], tubes[:, 5]) - reach < z) & (np.maximum(tubes[:, 2], tubes[:, 5]) + reach > z)
    tubes, reach = tubes[near], reach[near]
    if not len(tubes):
        return picture
    # The part of each tube that can touch the plane: a long slanting one needs a small square only.
    rise = tubes[:, 5] - tubes[:, 2]
    steep = np.where(np.abs(rise) < 1e-3, 1e-3, rise)
    ends = np.sort(np.stack([(z - reach - tubes[:, 2]) / steep, (z + reach - tubes[:, 2]) / steep]), axis=0)
    ends = np.clip(np.where(np.abs(rise) < 1e-3, [[0.0], [1.0]], ends), 0, 1)  # (2, n)
    places = tubes[None, :, :2] + ends[..., None] * (tubes[:, 3:5] - tubes[:, :2])[None]  # (2, n, 2)
    low, high = places.min(0) - reach[:, None], places.max(0) + reach[:, None]
    column = np.floor((low[:, 0] - x[0]) / pixel).astype(int)
    row = np.floor((low[:, 1] - y[0]) / pixel).astype(int)
    wide = np.ceil((high - low).max(1) / pixel).astype(int) + 1
    kind = np.searchsorted(PATCHES, np.minimum(wide, PATCHES[-1]))
    for which, side in enumerate(PATCHES):
        chosen = np.flatnonzero(kind == which)
        for part in np.array_split(chosen, max(1, len(chosen) * side * side // 400_000)):
            if len(part):
                _draw(picture, tubes[part].astype(np.float32), column[part], row[part], side, (x, y, z, pixel))
    return picture


def _draw(picture, tubes, column, row, side, plane):
    x, y, z, pixel = plane
    columns = column[:, None] + np.arange(side)  # (n, side)
    rows = row[:, None] + np.arange(side)
    across = (x[0] + columns * pixel).astype(np.float32)[:, None, :]
    down = (y[0] + rows * pixel).astype(np.float32)[:, :, None]
    depth = _inside(tubes.T[:, :, None, None], across, down, np.float32(z))  # (n, side, side)
    # A tube thinner than a pixel fills a part of it only.
    full = np.minimum(1, tubes[:, 6:].mean(1) * 2 / pixel)[:, None, None]
    share = np.clip(depth / pixel + 0.5, 0, 1) * full
    there = (share > 0) & (columns >= 0)[:, None, :] & (columns < len(x))[:, None, :]
    there &= (rows >= 0)[:, :, None] & (rows < len(y))[:, :, None]
    where = np.broadcast_to(rows[:, :, None] * len(x) + columns[:, None, :], share.shape)[there]
    np.maximum.at(picture.reshape(-1), where, share[there])


def shadow(
    places: np.ndarray, radius: np.ndarray, amount: np.ndarray, shape: tuple[int, int], blur: float = 0.0
) -> np.ndarray:
    """Discs of the radius (pixels) laid at the places (rows, columns), each of the given height, added up.

    A row of discs along a line is the shadow of a tube: discs a pixel apart and 1 high give its thickness in
    pixels. They are gathered by radius and spread in the frequency domain; `blur` is a Gaussian's, in pixels.
    """
    margin = 8
    size = tuple(next_fast_len(n + 2 * margin, real=True) for n in shape)
    total = np.zeros((size[0], size[1] // 2 + 1), np.complex64)
    fy, fx = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None]
    frequency = np.hypot(fy, fx).astype(np.float32)
    kind = np.round(np.log(np.maximum(radius, 0.2)) / np.log(1.2)).astype(int)
    for which in np.unique(kind):
        mine, r = kind == which, float(1.2**which)
        height = amount[mine] * (radius[mine] / r) ** 2  # the disc's radius is rounded, its volume is not
        where = 2 * np.pi * r * frequency
        disc = np.pi * r * r * np.interp(where, WAVES, DISC)
        laid = _lay(places[mine] + margin, height, size)
        total += rfft2(laid) * disc.astype(np.float32)
    total *= np.exp(-2 * (np.pi * max(blur, 0.35) * frequency) ** 2)
    return irfft2(total, size)[margin : margin + shape[0], margin : margin + shape[1]].astype(np.float32)


def _lay(places: np.ndarray, height: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Heights shared out among the four pixels about each place."""
    whole = np.floor(places).astype(int)
    part = places - whole
    picture = np.zeros(size[0] * size[1])
    for down in (0, 1):
        for across in (0, 1):
            row, column = whole[:, 0] + down, whole[:, 1] + across
            share = np.abs(1 - down - part[:, 0]) * np.abs(1 - across - part[:, 1]) * height
            there = (row >= 0) & (row < size[0]) & (column >= 0) & (column < size[1])
            picture += np.bincount(row[there] * size[1] + column[there], share[there], len(picture))
    return picture.reshape(size).astype(np.float32)
