"""Preparing a `Scan` on a study's grid by its input contract, with the way back to the scan's own voxels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from scans.affine import is_oblique, straighten
from scans.foreground import find_foreground, on_grid
from scans.resample import resample
from scans.scan import Scan, ScanError, dims
from studies import Contract

BRIGHTEST = 10.0  # deviations above the mean; what is brighter is clipped
DARK = 0.05  # of full brightness; darker pixels of a picture count as background
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean, deviation of red, green, blue
LUMA = (0.299, 0.587, 0.114)
REMEDIES = {
    "volume": "upload the whole scan as .nii.gz, or as a zip of its DICOM series",
    "image": "upload one picture as .png, .jpg or .dcm",
}


@dataclass(frozen=True, eq=False)
class Prepared:
    tensor: torch.Tensor  # float32 (1, X, Y, Z) or (C, H, W)
    to_scan: np.ndarray  # (4, 4) grid voxel index → scan voxel index
    foreground: torch.Tensor  # bool, on the grid
    affine: np.ndarray  # (4, 4) grid voxel → world mm
    notes: list[str]  # "no-affine", "oblique"
    facts: dict[str, Any]

    @property
    def grey(self) -> torch.Tensor:
        """(X, Y, Z) or (H, W): what there is to see, colours averaged."""
        return self.tensor[0] if len(self.tensor) == 1 else self.tensor.mean(0)

    def window(self, percent: float) -> tuple[float, float]:
        """The grey values to show as black, which is no signal, and as white: all but the brightest are darker."""
        step = 1 + 2 * (self.foreground.numel() // 1_000_000)  # odd, to keep out of step with the rows
        some, inside = self.grey.flatten()[::step].numpy(), self.foreground.flatten()[::step].numpy()
        return float(self.grey.min()), float(np.percentile(some[inside] if inside.any() else some, percent))


def prepare(scan: Scan, contract: Contract) -> Prepared:
    """The scan on the grid of the contract, its intensities scaled, with the way back."""
    if scan.kind != contract.kind:
        article = {"volume": "a volume", "image": "an image"}
        raise ScanError(
            "wrong-kind",
            f"this study reads {article[contract.kind]} and the file holds "
            f"{article[scan.kind]} ({dims(scan.voxels.shape)}); "
            f"{REMEDIES[contract.kind]}",
        )
    try:
        return prepare_volume(scan, contract) if scan.kind == "volume" else prepare_image(scan, contract)
    except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise ScanError(
            "unreadable",
            f"this scan ({dims(scan.voxels.shape)}) cannot be brought to the study's grid "
            f"({type(error).__name__}); export it again",
        ) from error


def prepare_volume(scan: Scan, contract: Contract) -> Prepared:
    """A volume on its grid.

    "head" lays the head's middle on the contract's anchor, axes along the world's; "fill" stretches the
    voxels as stored, first on first and last on last, whatever way they lie, and is what a scan without an
    affine gets. "foreground" scales by the mean and deviation of the foreground in the middle of the head, and so
    does "structures", from which `diagnosis.anatomy.structures` goes on; "stored" leaves the numbers alone.
    """
    known = scan.facts.get("affine_known", True)
    notes = [] if known else ["no-affine"]
    found = find_foreground(scan.voxels, scan.affine)
    head = contract.place == "head" and known
    if head:
        affine = scan.affine
        if is_oblique(affine):
            notes.append("oblique")
        else:
            affine = straighten(affine)
        spacing, full = np.array(contract.spacing), np.array(contract.shape)
        to_world = np.diag([*spacing, 1.0])
        to_world[:3, 3] = found.anchor - spacing * np.array(contract.anchor) * (full - 1)
        to_scan = np.linalg.inv(affine) @ to_world
    else:
        to_scan = np.diag([*((np.array(scan.voxels.shape) - 1) / (np.array(contract.shape) - 1)), 1.0])
    shape = contract.shape if contract.planes is None else (contract.planes, *contract.shape[1:])

    voxels = as_tensor(scan.voxels)
    if contract.scale == "foreground" or contract.outlined:
        zero = -found.mean / found.deviation  # what no signal becomes, and what lies outside the scan
        values = resample(voxels, to_scan, shape, head, -found.air, 1 / found.deviation)
        values.add_(zero).clamp_(zero, BRIGHTEST)
        threshold = (found.threshold - found.air) / found.deviation + zero
    else:
        values = resample(voxels, to_scan, shape, smooth=head)
        threshold = found.threshold
    foreground = on_grid(found, to_scan, shape).logical_and_(values > threshold)
    return Prepared(values[None], to_scan, foreground, scan.affine @ to_scan, notes, dict(scan.facts))


def as_tensor(voxels: np.ndarray) -> torch.Tensor:
    """The same memory where torch can take it."""
    if not voxels.flags.writeable or min(voxels.strides) < 0 or not voxels.dtype.isnative:
        voxels = voxels.astype(voxels.dtype.newbyteorder("="), order="K")
        voxels = voxels.copy() if min(voxels.strides) < 0 else voxels
    return torch.from_numpy(voxels)


def prepare_image(scan: Scan, contract: Contract) -> Prepared:
    """A picture on its grid.

    "crop" scales the picture until it just covers the grid and keeps its centre; "squeeze" stretches it to
    the grid. Brightness becomes 0 to 1 ("unit"), or ImageNet's scale ("imagenet"), or stays ("stored").
    """
    size, target = np.array(scan.voxels.shape[:2]), np.array(contract.shape)
    covering = np.maximum(target, np.round(size * (target / size).max()))
    wanted = (covering if contract.place == "crop" else target).astype(int)
    start = (wanted - target) // 2
    if scan.voxels.ndim == 3 and contract.channels == 1:
        shares = (scan.voxels[..., band].astype(np.float32) * np.float32(share) for band, share in enumerate(LUMA))
        bands = [np.asarray(sum(shares))]
    else:
        bands = [scan.voxels] if scan.voxels.ndim == 2 else [scan.voxels[..., band] for band in range(3)]
    low, high = 0.0, 1.0
    if contract.scale != "stored":
        whole = scan.voxels.dtype == np.uint8
        low, high = (0.0, 255.0) if whole else (float(min(map(np.min, bands))), float(max(map(np.max, bands))))
    values = torch.empty(len(bands), *contract.shape)  # (1 or 3, H, W)
    for band, out in zip(bands, values, strict=True):  # one at a time: as floats it is four times as large
        pixels = torch.from_numpy(band.astype(np.float32))[None, None].sub_(low).div_(high - low)
        scaled = functional.interpolate(pixels, wanted.tolist(), mode="bilinear", antialias=True)[0, 0]
        out.copy_(scaled[start[0] : start[0] + target[0], start[1] : start[1] + target[1]])
    foreground = values.mean(0) > DARK * float(values.max())
    if contract.channels == 3:
        values = values.expand(3, -1, -1)
    if contract.scale == "imagenet":
        mean, deviation = torch.tensor(IMAGENET).view(2, -1, 1, 1)[:, : len(values)]
        values = (values - mean) / deviation
    step = size / wanted  # pixels of the scan a grid pixel, centres half a pixel in
    to_scan = np.diag([*step, 1.0, 1.0])
    to_scan[:2, 3] = (start + 0.5) * step - 0.5
    return Prepared(values.contiguous(), to_scan, foreground, to_scan, [], dict(scan.facts))


def restore(values: np.ndarray | torch.Tensor, prepared: Prepared, scan: Scan) -> np.ndarray:
    """A map on the grid, read at the scan's own voxels (float32); zero where the grid does not reach."""
    values = torch.as_tensor(values).detach().cpu().float()
    to_grid = np.linalg.inv(prepared.to_scan)
    if scan.kind == "volume":
        return resample(values, to_grid, scan.voxels.shape, smooth=False).numpy()
    return resample(values[..., None], to_grid, (*scan.voxels.shape[:2], 1), smooth=False)[..., 0].numpy()
