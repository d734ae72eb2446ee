"""The foreground of a scan, the head or the brain in it, and the anchor by which it is placed on a grid."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from scans.affine import axes, is_oblique
from scans.resample import resample

COARSE = 3.0  # mm; the foreground is sought on about every third voxel of a 1 mm scan
MOST_CELLS = 1 << 22  # of the lattice, whatever the scan's size
BLUR = 2.5  # mm; against noise, and so that sulci do not cut the head to pieces
HEIGHT = 118.0  # mm below the top that set the anchor's height; on both whole heads and bare brains this
VAULT = 75.0  # lands in the middle of the brain, and the vault, above the face, sets it front to back
TAPER = 20.0  # mm over which either fades out, so that the anchor moves smoothly
TIP = 5000.0  # mm³ of foreground above what counts as the top
CORE = 50.0  # mm around the middle of the brain whose foreground sets the intensities: no scalp, no face
ANCHOR_TO_BRAIN = (0.0, -6.0, 0.0)  # mm from the anchor to the middle of the brain, in 20 adults


@dataclass(frozen=True, eq=False)
class Foreground:
    """What stands out from the air, found on a coarse lattice of the scan."""

    mask: np.ndarray  # bool, on the lattice, whose axes run x, y, z
    to_scan: np.ndarray  # 4×4: lattice index → scan voxel index
    air: float  # the scan's own value of no signal
    threshold: float
    mean: float  # of the core, above air
    deviation: float
    anchor: np.ndarray  # world mm


def find_foreground(voxels: np.ndarray, affine: np.ndarray) -> Foreground:
    """The head (or brain) in a scan: its mask on a coarse lattice, its intensities, its anchor.

    The lattice starts at the left, posterior, inferior corner however the axes are stored, so that all 48
    axis orders see the same samples.
    """
    order = axes(affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    to_scan, cuts = np.eye(4), [slice(None)] * 3
    steps = np.maximum(1, (COARSE / spacing + 1e-3).astype(int))
    cells = np.prod(np.ceil(np.array(voxels.shape) / steps))
    if cells > MOST_CELLS:
        steps = np.ceil(steps * np.cbrt(cells / MOST_CELLS)).astype(int)
    for world, axis in enumerate(order):
        step = int(steps[axis])
        back = affine[world, axis] < 0
        cuts[axis] = slice(None, None, -step if back else step)
        to_scan[axis, axis] = -step if back else step
        to_scan[axis, 3] = voxels.shape[axis] - 1 if back else 0
    lattice = voxels[tuple(cuts)].transpose(order)  # (x, y, z), canonical from here on
    to_scan = to_scan[:, [*order, 3]]
    sample = np.ascontiguousarray(lattice, dtype=np.float32)

    air = float(np.percentile(sample, 0.5))
    high = float(np.percentile(sample[sample > air], 99.9)) if (sample > air).any() else air
    threshold = air + 0.6 * (_otsu(sample, air, high) - air)
    cell = affine[:3, :3] @ to_scan[:3, :3]
    blur = BLUR / np.linalg.norm(cell, axis=0)
    blurred = ndimage.gaussian_filter(np.minimum(sample, high), blur, mode="nearest", truncate=2)
    mask = _largest(blurred > threshold)
    if not mask.any():
        mask = _largest(sample > air)
    if not mask.any():
        mask = np.ones_like(mask)

    index = np.argwhere(mask).astype(float)  # (n, 3)
    to_world = affine @ to_scan
    world = np.einsum("nj,ij->ni", index, to_world[:3, :3]) + to_world[:3, 3]  # numpy's `@` would leave threads
    # spinning beside torch's and slow down all that follows
    anchor = _anchor(world, cell)
    away = world - (anchor + ANCHOR_TO_BRAIN)
    core = np.einsum("ij,ij->i", away, away) < CORE**2
    values = np.minimum(sample[mask], high)
    values = values[core] if core.mean() > 0.05 else values
    deviation = float(values.std(dtype=np.float64))
    return Foreground(
        mask,
        to_scan,
        air,
        float(threshold),
        float(values.mean(dtype=np.float64)) - air,
        deviation if deviation > 0 else 1.0,
        anchor,
    )


def _otsu(sample: np.ndarray, air: float, high: float) -> float:
    """Otsu's threshold of what lies above the air."""
    floor = air + 0.01 * (high - air)
    if not high > air:
        return air
    seen = sample[sample > floor].astype(np.float64)  # or 256 bins find no room far from zero
    counts, edges = np.histogram(seen, 256, (floor, high))
    if not counts.sum():
        return air
    middle = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    mass = np.cumsum(counts * middle)
    possible = (below > 0) & (above > 0)
    if not possible.any():  # one brightness alone
        return float(mass[-1] / counts.sum())
    darker = mass[:-1] / np.maximum(below, 1)
    brighter = (mass[-1] - mass[:-1]) / np.maximum(above, 1)
    best = int(np.argmax(np.where(possible, below * above * (brighter - darker) ** 2, -1)))
    return float(darker[best] + brighter[best]) / 2  # steadier than the edge of a bin


def _largest(mask: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def _wider(mask: np.ndarray) -> np.ndarray:
    """The mask and every cell beside it."""
    wider = mask.copy()
    for axis in range(mask.ndim):
        ahead, behind = (np.moveaxis(each, axis, 0) for each in (wider, mask))
        ahead[1:] |= behind[:-1]
        ahead[:-1] |= behind[1:]
    return wider


def _anchor(world: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """The middle (mm) of the upper head: the mean position of the foreground below its top, neck left out."""
    height = world[:, 2]
    step = np.abs(cell[2]).sum()  # how far one lattice cell reaches up and down
    edges = np.arange(height.min() - step / 2, height.max() + step, step)
    above = np.histogram(height, edges)[0][::-1].cumsum() * abs(np.linalg.det(cell))  # mm³ above each edge
    top = np.interp(min(TIP, 0.01 * above[-1]), above, edges[-2::-1])
    low, high = (np.clip((height - (top - reach)) / TAPER + 0.5, 0, 1) for reach in (HEIGHT, VAULT))
    middle = np.einsum("n,nj->j", high, world) / high.sum()
    middle[2] = np.einsum("n,n", low, height) / low.sum()
    return middle


def on_grid(found: Foreground, to_scan: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    """The foreground's mask on a grid of `shape` that `to_scan` maps to scan voxels: nearest lattice cell."""
    matrix = np.linalg.inv(found.to_scan) @ to_scan
    mask = torch.from_numpy(_wider(found.mask))
    if is_oblique(matrix):
        return resample(mask, matrix, shape, smooth=False) > 0.5
    mask = functional.pad(mask.permute(axes(matrix.T)), [1] * 6)  # the rim reads as background
    for axis in (2, 1, 0):  # the big copies last, along whole rows
        source = axes(matrix.T)[axis]
        at = torch.round(matrix[source, axis] * torch.arange(shape[axis]) + matrix[source, 3]).long() + 1
        mask = mask.index_select(axis, at.clamp(0, mask.shape[axis] - 1))
    return mask
