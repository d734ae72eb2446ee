"""Grad-CAM: the channels of one late layer, weighted by how much each moves the score."""

import itertools

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from diagnosis.maps.network_view import Cells, NetworkView, Progress
from networks.blockwise import filled
from scans.prepare import Prepared


def grad_cam(view: NetworkView, x: Tensor, prepared: Prepared, progress: Progress) -> tuple[Tensor, float]:
    """The CAM layer's channels, weighted by how much each moves the score; what speaks against is cut off.

    A cell of that layer is wider than the air about a head is deep, so the map is shown within the head alone.
    Where that layer ends the blocks, the base that the answer came from is all there is to know.
    """
    if view.blocks:
        kept = (view.levels(x)[-1] if view.base is None else view.base.float()).clone().requires_grad_()
        with torch.enable_grad():
            score = view.score(view.tail(kept))
    else:
        kept, score = _through_layer(view, x)
    (gradient,) = torch.autograd.grad(score.sum(), kept)
    weight = gradient.mean(tuple(range(2, x.ndim)), keepdim=True)  # (1, C, 1, 1, 1)
    cam = (weight * kept.detach()).sum(1)[0].relu()  # (3, 5, 5)
    progress(1.0)
    return place(cam, view.cells, x.shape[2:]).mul_(enclosed(prepared.foreground).to(cam.device)), score.item()


def _through_layer(view: NetworkView, x: Tensor) -> tuple[Tensor, Tensor]:
    """What the CAM layer gives in a pass of the whole network, and the score."""
    kept: list[Tensor] = []

    def keep(module, inputs, output):
        kept.append(output.detach().requires_grad_())
        return kept[0].clone()  # what follows may write in place

    handle = view.network.get_submodule(view.cam_layer).register_forward_hook(keep)
    with torch.enable_grad():
        score = view.score(view.tail(x))
    handle.remove()
    return kept[0], score


def enclosed(foreground: Tensor) -> Tensor:
    """The foreground and what it encloses, such as dark ventricles: the holes of a picture; in a volume, where
    these take long to find, what lies between two of its voxels along every axis."""
    if foreground.ndim == 2:
        return torch.from_numpy(ndimage.binary_fill_holes(foreground.cpu().numpy()))
    whole = foreground.cpu().numpy().copy()
    inside = whole[tuple(filled(foreground.cpu()))]
    between = np.ones_like(inside)
    for axis in range(inside.ndim):
        between &= _reached(inside, axis)
        between &= np.flip(_reached(np.flip(inside, axis), axis), axis)
    inside[...] = between
    return torch.from_numpy(whole)


def _reached(mask: np.ndarray, axis: int) -> np.ndarray:
    """Whether the mask holds a voxel at each place along an axis, or before it."""
    if axis == mask.ndim - 1:
        return np.logical_or.accumulate(mask, axis)
    reached = mask.copy()
    for before, here in itertools.pairwise(np.moveaxis(reached, axis, 0)):  # far quicker than accumulate
        np.logical_or(before, here, out=here)
    return reached


def place(cam: Tensor, cells: Cells, shape: torch.Size) -> Tensor:
    """A coarse map on the input's grid: linear between the places where its cells lie, constant beyond."""
    for axis, ((start, step), size) in enumerate(zip(cells, shape, strict=True)):
        count = cam.shape[axis]
        centres = start + step * np.arange(count)
        shares = np.stack([np.interp(np.arange(size), centres, row) for row in np.eye(count)], 1)  # (size, count)
        mix = torch.as_tensor(shares, dtype=cam.dtype, device=cam.device)
        cam = torch.tensordot(mix, cam, ([1], [axis])).movedim(0, axis)
    return cam
