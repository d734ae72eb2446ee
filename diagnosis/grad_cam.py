"""Grad-CAM: the channels of one late layer, weighted by how much each moves the score."""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from diagnosis.network_view import Cells, NetworkView, Progress
from scans.prepare import Prepared


def grad_cam(view: NetworkView, x: Tensor, prepared: Prepared, progress: Progress) -> tuple[Tensor, float]:
    """The CAM layer's channels, weighted by how much each moves the score; what speaks against is cut off.

    A cell of that layer is wider than the air about a head is deep, so the map is shown within the head alone.
    """
    kept = []

    def keep(module, inputs, output):
        kept.append(output.detach().requires_grad_())
        return kept[0].clone()  # what follows may write in place

    handle = view.network.get_submodule(view.cam_layer).register_forward_hook(keep)
    with torch.enable_grad():
        score = view.score(view.tail(view.front(x)))
    handle.remove()
    (gradient,) = torch.autograd.grad(score.sum(), kept[0])
    axes = tuple(range(2, x.ndim))
    weight = gradient.mean(axes, keepdim=True)  # (1, C, 1, 1, 1)
    cam = (weight * kept[0].detach()).sum(1)[0].relu()  # (3, 5, 5)
    progress(1.0)
    return place(cam, view.cells, x.shape[2:]) * enclosed(prepared.foreground).to(cam.device), score.item()


def enclosed(foreground: Tensor) -> Tensor:
    """The foreground and what it encloses, such as dark ventricles: the holes of a picture; in a volume, where
    these take long to find, what lies between two of its voxels along every axis."""
    if foreground.ndim == 2:
        return torch.from_numpy(ndimage.binary_fill_holes(foreground.cpu().numpy()))
    between = torch.ones_like(foreground)
    for axis in range(foreground.ndim):
        count = foreground.int().cumsum(axis)  # voxels so far; between the first and the last lies more than none
        last = count.narrow(axis, -1, 1)
        between &= (count > 0) & (count - foreground.int() < last)
    return between | foreground


def place(cam: Tensor, cells: Cells, shape: torch.Size) -> Tensor:
    """A coarse map on the input's grid: linear between the places where its cells lie, constant beyond."""
    for axis, ((start, step), size) in enumerate(zip(cells, shape, strict=True)):
        count = cam.shape[axis]
        centres = start + step * np.arange(count)
        mix = np.stack([np.interp(np.arange(size), centres, row) for row in np.eye(count)], 1)  # (size, count)
        mix = torch.as_tensor(mix, dtype=cam.dtype, device=cam.device)
        cam = torch.tensordot(mix, cam, ([1], [axis])).movedim(0, axis)
    return cam
