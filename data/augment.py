"""Random changes to prepared tensors while training; each is a pure function of (seed, epoch, index).

Two ways for volumes: cheap ones for every sample (flip, whole-voxel shift, contrast, bias field, noise) and a
full affine, resampled once together with the flip and the shift, for a share of them, because resampling a
whole head costs a third of a training step on a CPU. Nothing here reads files or knows classes.
"""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from studies import NORMALISED, STRUCTURES

# Each is the largest change; the draw is uniform between minus and plus this.
VOLUME = {"rotation": 8.0, "zoom": 0.07, "shift": 4, "gamma": 0.3, "gain": 0.1, "bias": 0.2, "noise": 0.1}
IMAGE = {"rotation": 10.0, "zoom": 0.1, "shift": 0.06, "gain": 0.15, "brightness": 0.15}
AFFINE_SHARE = 0.25  # of the volumes get the full affine


def generator(seed: int, epoch: int, index: int) -> torch.Generator:
    """The random numbers of one sample in one epoch, the same in whatever process or order it is drawn."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def augment(x: Tensor, scale: str, numbers: torch.Generator, affine: float = AFFINE_SHARE) -> Tensor:
    """A changed copy of x, (1, X, Y, Z) or (C, H, W), of the same shape; x may lie on any device.

    `scale` is the contract's; `affine` the share of volumes that are turned and zoomed.
    """
    return _volume(x, scale, numbers, affine) if x.ndim == 4 else _image(x, numbers)


def background(x: Tensor) -> Tensor:
    """The level of air, a value a channel: what voxels from outside the picture are filled with."""
    sampled = x.flatten(1)[:, :: max(1, x[0].numel() // 20000)]  # (C, ~20000)
    return torch.quantile(sampled.float(), 0.01, dim=1)  # (C,)


def _volume(x: Tensor, scale: str, numbers: torch.Generator, affine: float) -> Tensor:
    flip = _coin(numbers, 0.5)
    turned = _coin(numbers, affine)
    angles = [math.radians(_draw(numbers, VOLUME["rotation"])) for _ in range(3)]
    zoom = 1 + _draw(numbers, VOLUME["zoom"])
    shift = [round(_draw(numbers, VOLUME["shift"] + 0.499)) for _ in range(3)]
    if scale == NORMALISED:  # brains lie alike, and are to stay so
        return x.flip(1) if flip else x
    outlined = scale == STRUCTURES  # 0 where nothing was outlined, and no brightness to vary
    air = torch.zeros(1) if outlined else background(x)
    if turned:
        x = _resample(x, _rotation(angles) / zoom, shift, flip, air)
    else:
        x = _shifted(x.flip(1) if flip else x, shift, air)
    return x if outlined else _intensities(x, scale, numbers, air)


def _intensities(x: Tensor, scale: str, numbers: torch.Generator, air: Tensor) -> Tensor:
    """Contrast, bias field and noise: signal → top · (signal / top)^gamma · field, zero signal being air.

    A scan of another contrast reaches the network only after `prepare` has scaled it by its foreground, so where
    that is done the foreground's mean and deviation, estimated from some voxels, are put back to what they were.
    """
    gamma = math.exp(_draw(numbers, VOLUME["gamma"]))
    gain = 1 + _draw(numbers, VOLUME["gain"])
    level = abs(_draw(numbers, VOLUME["noise"])) if _coin(numbers, 0.5) else 0.0
    coarse = torch.exp((torch.rand((4, 4, 4), generator=numbers) * 2 - 1) * VOLUME["bias"]).to(x.device)
    seed = int(torch.randint(2**31, (), generator=numbers))
    signal = (x[0] - air).clamp_(min=0)  # (X, Y, Z)
    few = tuple(slice(None, None, max(1, size // 40)) for size in signal.shape)
    before = signal[few]
    top = float(torch.quantile(before.flatten(), 0.99))
    if not top > 0:
        return x
    inside = before > top * 0.2
    after = _with_gamma(before, gamma, top) * _field(coarse, signal.shape, few)
    want, have = before[inside], after[inside]
    offset = float(air)
    if scale == "foreground" and len(have) > 1:
        gain *= float(want.std() / have.std().clamp(min=1e-6))
        offset += float(want.mean() - have.mean() * gain)
    whole = (slice(None),) * 3
    signal = _with_gamma(signal, gamma, top).mul_(_field(coarse * gain, signal.shape, whole)).add_(offset)
    if level and len(want) > 1:
        here = torch.Generator(x.device).manual_seed(seed)
        signal.add_(torch.randn(signal.shape, generator=here, device=x.device), alpha=level * float(want.std()))
    return signal[None]


def _with_gamma(signal: Tensor, gamma: float, top: float) -> Tensor:
    return signal.pow(gamma).mul_(top ** (1 - gamma))


def _field(coarse: Tensor, shape: tuple[int, ...], where: tuple[slice, ...]) -> Tensor:
    """The coarse field (4, 4, 4) interpolated to the places chosen of a volume, an axis at a time."""
    for size, chosen in zip(shape, where, strict=True):
        ramps = F.interpolate(torch.eye(4, device=coarse.device)[None], size, mode="linear", align_corners=True)
        coarse = torch.tensordot(coarse, ramps[0][:, chosen], ([0], [0]))  # axis 0 is used up, the new one is last
    return coarse  # (X, Y, Z)


def _image(x: Tensor, numbers: torch.Generator) -> Tensor:
    flip = _coin(numbers, 0.5)
    angle = math.radians(_draw(numbers, IMAGE["rotation"]))
    zoom = 1 + _draw(numbers, IMAGE["zoom"])
    shift = [_draw(numbers, IMAGE["shift"]) * size for size in x.shape[1:]]
    gain, offset = 1 + _draw(numbers, IMAGE["gain"]), _draw(numbers, IMAGE["brightness"])
    cos, sin = math.cos(angle), math.sin(angle)
    x = _resample(x, torch.tensor([[cos, -sin], [sin, cos]]) / zoom, shift, flip, background(x))
    return x * gain + offset * x.std()


def _resample(x: Tensor, matrix: Tensor, shift: Sequence[float], flip: bool, air: Tensor) -> Tensor:
    """x through one affine about its centre, in voxels, with the mirror folded in: interpolated only once."""
    sizes = torch.tensor(x.shape[1:], dtype=torch.float32)
    half = (sizes - 1) / 2
    matrix = matrix.clone()
    offset = -matrix @ torch.tensor(shift, dtype=torch.float32)
    if flip:  # of the axis left–right: the first of a volume, the last of an image
        axis = 0 if x.ndim == 4 else 1
        matrix[axis], offset[axis] = -matrix[axis], -offset[axis]
    # voxels → grid_sample's own coordinates, −1 to 1 over each axis, axes in the reverse order
    matrix = matrix * half / half[:, None]
    theta = torch.cat([matrix.flip(0, 1), (offset / half).flip(0)[:, None]], 1)[None].to(x)
    grid = F.affine_grid(theta, [1, *x.shape], align_corners=True)
    level = air.view(-1, *[1] * (x.ndim - 1)).to(x)
    return F.grid_sample((x - level)[None], grid, align_corners=True)[0] + level


def _shifted(x: Tensor, shift: list[int], air: Tensor) -> Tensor:
    """x moved by whole voxels; what comes in from outside is air."""
    moved = air.view(-1, 1, 1, 1).expand(x.shape).clone()
    into = tuple(slice(max(0, n), size + min(0, n)) for n, size in zip(shift, x.shape[1:], strict=True))
    out_of = tuple(slice(max(0, -n), size + min(0, -n)) for n, size in zip(shift, x.shape[1:], strict=True))
    moved[(slice(None), *into)] = x[(slice(None), *out_of)]
    return moved


def _rotation(angles: list[float]) -> Tensor:
    """The rotation about x, then y, then z, as a 3×3 matrix."""
    turn = torch.eye(3)
    for (i, j), angle in zip(((1, 2), (0, 2), (0, 1)), angles, strict=True):
        one = torch.eye(3)
        one[i, i] = one[j, j] = math.cos(angle)
        one[i, j], one[j, i] = -math.sin(angle), math.sin(angle)
        turn = one @ turn
    return turn


def _draw(numbers: torch.Generator, most: float) -> float:
    return (float(torch.rand((), generator=numbers)) * 2 - 1) * most


def _coin(numbers: torch.Generator, share: float) -> bool:
    return float(torch.rand((), generator=numbers)) < share
