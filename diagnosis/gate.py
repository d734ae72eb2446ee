"""The gate: whether a scan is fit to be judged, with reasons in plain words and what to do about each.

`before` looks at the file's header and at the prepared picture, `after` at how far the network's features lie
from those it learned from. Neither knows anything of classes or probabilities.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from diagnosis import likeness
from model import Weights
from scans.prepare import Prepared
from scans.scan import Scan
from studies import Contract

FIT, DOUBTFUL, UNFIT = "fit", "doubtful", "cannot be judged"


@dataclass(frozen=True)
class Finding:
    level: str  # DOUBTFUL or UNFIT
    code: str  # a key of REASONS
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return REASONS[self.code].format(**self.values)


REASONS = {
    "no-affine": (
        "The file does not say how the head lies; it was taken as stored. Export it again with its orientation."
    ),
    "thick-slices": (
        "The slices are {mm:.1f} mm thick; detail between them is lost. Use a scan of at most {most:g} mm."
    ),
    "wrong-modality": "The file says that it is {modality}, not MR. Upload a T1-weighted MRI.",
    "sequence-not-t1": (
        "The file says that its sequence shows {weighting}, not T1. Use the T1-weighted series of the examination."
    ),
    "contrast-agent": (
        "The file names a contrast agent; the network learned from scans without one. Use the T1 scan from before "
        "it was given."
    ),
    "wrong-size": (
        "What stands out from the background measures {ml:.0f} ml; an adult head or brain has {low:.0f} to "
        "{high:.0f} ml. Check the voxel size in the file and that it shows a head."
    ),
    "cut-off": (
        "About {percent:.0f} % of the brain lies outside the scan or is empty. Use a scan of the whole head."
    ),
    "turned": (
        "The head seems to lie upside down or back to front: the orientation in the file is probably wrong. "
        "Export it again."
    ),
    "no-head": (
        "This does not look like a T1 scan of a head (likeness {score:.2f}, heads reach {least:.2f}). Check "
        "that it is the right file."
    ),
    "little-like-a-head": (
        "This looks only a little like the T1 heads the network knows (likeness {score:.2f}, usual: above "
        "{least:.2f}). Check the file and its orientation."
    ),
    "not-t1": (
        "Grey and white matter do not have the contrast of a T1 scan. Check that it is not a FLAIR, T2 or "
        "contrast-enhanced scan."
    ),
    "uneven-halves": "The left and right halves of the brain differ widely. Check for a cut-off or damaged scan.",
    "noisy": "The scan is very noisy; fine structure is lost. Use a better scan if there is one.",
    "coloured": "The picture is coloured; this study asks for grey ones. Upload the original, without overlays.",
    "no-such-picture": (
        "This does not look like the pictures this study is about (likeness {score:.2f}, usual: above "
        "{least:.2f}). Check that it is the right file."
    ),
    "tiny": (
        "The picture has only {rows} × {columns} pixels; this study looks at {wanted}. Upload it at full size."
    ),
    "unlike-training": (
        "The scan looks unlike those the network learned from (distance {distance:.1f}, usual: up to "
        "{threshold:.1f}). Check that it is the kind of picture this study asks for."
    ),
    "not-measured": (
        "What was outlined inside the skull adds up to {ml:.0f} ml; heads have {low:.0f} to {high:.0f} ml. No "
        "measures are given. Check the voxel size in the file and the pictures."
    ),
    "little-atrophy": (
        "Class and anatomy speak against each other: the expected severity is {severity:.2f}, but ventricles "
        "({ventricles:.2f} % of the volume inside the skull) and hippocampi ({hippocampi:.2f} %) measure like "
        "those of the least affected tenth that was learned from. Read the class with care."
    ),
    "much-atrophy": (
        "Class and anatomy speak against each other: the expected severity is {severity:.2f}, but ventricles "
        "({ventricles:.2f} % of the volume inside the skull) and hippocampi ({hippocampi:.2f} %) measure like "
        "those of the most affected tenth that was learned from. Read the class with care."
    ),
    "no-brain": (
        "No brain could be outlined in this scan, and these weights judge what is outlined. Check that it is a "
        "head and that the file says how it lies."
    ),
    "not-finite-answer": (
        "The network's answer to this scan is no number, so there is none to give. Export the scan again; if "
        "other scans fail alike, the weights file is damaged."
    ),
}
NOT_FINITE = Finding(UNFIT, "not-finite-answer")

THICKEST_MM = 5.0
HEAD_ML = (600.0, 6500.0)  # a bare brain to a head with neck and shoulders
INSIDE_HALF_AXES_MM = (62.0, 78.0, 60.0)  # of what must lie inside the scan, about the middle of the brain
SPECKS_SHARE = 0.05  # of the fullest plane's foreground: what a plane with no more holds is not counted as filled
CUT_OFF_SHARES = (0.03, 0.25)  # share of it outside the scan: doubtful, cannot be judged
LIKENESS = (0.5, 0.58)  # match with the mean training head: below the first no head, below the second doubtful
UPRIGHT_MARGIN = 0.05  # how much better a head fits upright than turned over
T1_CONTRAST = -0.15  # deviations by which deep white matter outshines the cortex in a T1 scan
NOISE_SHARE = 0.22  # share of noise in the spread of brightness; usual are 0.05 to 0.16
NOISE_MM = 1.2  # between the neighbours that it was set for; farther ones differ more by what they show
COLOUR_SHARE = 0.06  # mean difference between channels, of the full range


def verdict(findings: list[Finding] | tuple[Finding, ...]) -> str:
    """The worst of the findings."""
    levels = {finding.level for finding in findings}
    return UNFIT if UNFIT in levels else DOUBTFUL if DOUBTFUL in levels else FIT


def before(scan: Scan, prepared: Prepared, weights: Weights) -> list[Finding]:
    """What the header and the prepared picture say."""
    look = _volume if weights.contract.kind == "volume" else _image
    return look(scan, prepared, weights)


def after(features: Tensor, weights: Weights) -> list[Finding]:
    """How far the penultimate features (F,) lie from the training features, where the weights file knows them."""
    threshold = weights.header.likeness.get("threshold")
    if threshold is None:
        return []
    distance = likeness.distance(features, weights.extras)
    if distance <= threshold:
        return []
    return [Finding(DOUBTFUL, "unlike-training", {"distance": distance, "threshold": threshold})]


# --- volumes -------------------------------------------------------------------------------------------------


def _volume(scan: Scan, prepared: Prepared, weights: Weights) -> list[Finding]:
    findings = []
    thickest = max(scan.facts["spacing"])
    if thickest > THICKEST_MM:
        findings.append(Finding(DOUBTFUL, "thick-slices", {"mm": thickest, "most": THICKEST_MM}))
    if not scan.facts["affine_known"]:
        findings.append(Finding(DOUBTFUL, "no-affine"))
    modality = scan.facts.get("modality")
    if modality not in (None, "", "MR"):
        findings.append(Finding(UNFIT, "wrong-modality", {"modality": modality}))
    if weights.contract.place == "head":
        findings += _acquired(scan)
        findings += _head(scan, prepared, weights)
    return findings


def _acquired(scan: Scan) -> list[Finding]:
    """What DICOM headers say of the sequence."""
    told = scan.acquisition
    if told is None:
        return []
    findings = []
    if told.weighting not in (None, "T1"):
        findings.append(Finding(UNFIT, "sequence-not-t1", {"weighting": told.weighting}))
    if told.contrast:
        findings.append(Finding(DOUBTFUL, "contrast-agent"))
    return findings


def _head(scan: Scan, prepared: Prepared, weights: Weights) -> list[Finding]:
    """Whether a whole, upright T1 head lies where the contract puts heads."""
    contract, findings = weights.contract, []
    low, high = HEAD_ML
    ml = int(torch.count_nonzero(prepared.foreground)) * math.prod(contract.spacing) / 1000
    if not low <= ml <= high:
        findings.append(Finding(UNFIT, "wrong-size", {"ml": ml, "low": low, "high": high}))
    shift: tuple[float, ...] = (0.0, 0.0, 0.0)
    template = weights.extras.get("likeness.sketch")
    if template is not None:
        sketched = likeness.sketch(prepared.tensor, contract)
        fit = likeness.match(sketched, template.cpu(), contract)
        shift = tuple(
            s * n * mm for s, n, mm in zip(fit.shift, likeness.cells(contract), contract.spacing, strict=True)
        )
        findings += _likeness(fit)
        if _mirrored(sketched, likeness.core(contract)) < 0:
            findings.append(Finding(DOUBTFUL, "uneven-halves"))
    outside = _outside(scan, prepared, contract, shift)
    if outside > CUT_OFF_SHARES[0]:
        level = UNFIT if outside > CUT_OFF_SHARES[1] else DOUBTFUL
        findings.append(Finding(level, "cut-off", {"percent": 100 * outside}))
    if UNFIT not in {finding.level for finding in findings}:
        if contrast(prepared, contract) < T1_CONTRAST:
            findings.append(Finding(DOUBTFUL, "not-t1"))
        if noise(prepared) > NOISE_SHARE * max(1.0, contract.spacing[0] / NOISE_MM):
            findings.append(Finding(DOUBTFUL, "noisy"))
    return findings


def _likeness(fit: likeness.Match) -> list[Finding]:
    if fit.turned and fit.score - fit.margin > LIKENESS[0]:
        return [Finding(UNFIT, "turned")]
    if fit.score < LIKENESS[0] or fit.margin < UPRIGHT_MARGIN:
        return [Finding(UNFIT, "no-head", {"score": fit.score, "least": LIKENESS[1]})]
    if fit.score < LIKENESS[1]:
        return [Finding(DOUBTFUL, "little-like-a-head", {"score": fit.score, "least": LIKENESS[1]})]
    return []


def _mirrored(sketched: Tensor, where: Tensor) -> float:
    """Correlation of the inner brain with its mirror image."""
    pair = torch.stack([sketched[where], sketched.flip(0)[where]])
    return float(torch.corrcoef(pair)[0, 1])


def _middle(contract: Contract, shift: tuple[float, ...]) -> np.ndarray:
    """The middle of the brain in grid voxels."""
    spacing = np.array(contract.spacing)
    return np.array(contract.anchor) * np.array(contract.shape) + np.array(shift) / spacing - 0.5


def _outside(scan: Scan, prepared: Prepared, contract: Contract, shift: tuple[float, ...]) -> float:
    """The share of the brain's usual place that lies outside the scan, the grid, or what is not empty of it."""
    steps = [np.linspace(-1, 1, 15)] * 3
    ball = np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 3)
    ball = ball[(ball**2).sum(1) <= 1] * np.array(INSIDE_HALF_AXES_MM) / np.array(contract.spacing)
    points = ball + _middle(contract, shift)  # (n, 3) grid voxels
    there = points @ prepared.to_scan[:3, :3].T + prepared.to_scan[:3, 3]
    inside = ((there > -1) & (there < np.array(scan.voxels.shape[:3]))).all(1)
    low, high = _filled(prepared.foreground, likeness.cells(contract))
    inside &= ((points > low - 1) & (points < high)).all(1)
    return float(1 - inside.mean())


def _filled(foreground: Tensor, steps: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """From where to where along each axis the planes hold more than specks of foreground, in grid voxels."""
    sampled = foreground[tuple(slice(None, None, step) for step in steps)].numpy()
    low, high = np.zeros(sampled.ndim), np.zeros(sampled.ndim)
    for axis, step in enumerate(steps):
        counts = np.moveaxis(sampled, axis, 0).reshape(sampled.shape[axis], -1).sum(1)
        planes = np.flatnonzero(counts > SPECKS_SHARE * counts.max())
        if len(planes):
            low[axis], high[axis] = step * planes[0], min(step * (planes[-1] + 1), foreground.shape[axis])
    return low, high


def contrast(prepared: Prepared, contract: Contract) -> float:
    """By how many deviations deep tissue outshines the tissue next to fluid, in a slab above the ventricles.

    In a T1 scan white matter, which is deep, is brighter than the cortex; in a FLAIR or T2 scan it is darker.
    """
    middle = _middle(contract, (0.0, 0.0, 0.0))
    spacing = np.array(contract.spacing)
    half = np.array((60.0, 74.0, 12.0)) / spacing
    low = np.maximum(middle + np.array((0, -3, 26)) / spacing - half, 0).astype(int)
    high = np.minimum(middle + np.array((0, -3, 26)) / spacing + half, contract.shape).astype(int)
    part = prepared.tensor[0][tuple(map(slice, low, high))]
    x = F.avg_pool3d(part[None, None], 2)[0, 0].numpy()
    steps = [np.linspace(-1, 1, n) for n in x.shape[:2]]
    inside = (steps[0][:, None] ** 2 + steps[1][None] ** 2 < 1)[..., None] & np.ones(x.shape, bool)
    depth = ndimage.distance_transform_edt((x > -1.0) & inside, sampling=spacing * 2)  # mm from fluid or skull
    near = np.maximum(ndimage.uniform_filter(inside.astype(np.float32), 13), 0.1)
    even = x - ndimage.uniform_filter(x * inside, 13) / near  # freed of slow brightness changes
    shallow, deep = even[(depth > 2) & (depth <= 4)], even[(depth > 4) & (depth <= 8)]
    if min(len(shallow), len(deep)) < 100:
        return math.inf
    return float(np.median(deep) - np.median(shallow))


def noise(prepared: Prepared) -> float:
    """The spread of neighbours' differences in the middle of the grid, as a share of all spread there."""
    middle = tuple(slice(size // 3, 2 * size // 3) for size in prepared.tensor.shape[1:])
    part = prepared.tensor[0][middle]
    differences = (part[1:] - part[:-1]).abs().flatten()
    median = float(differences[:: max(1, len(differences) // 20000)].median())
    return median / 0.954 / max(float(part.std()), 1e-6)  # 0.954: the median of normal noise's differences


# --- images --------------------------------------------------------------------------------------------------


def _image(scan: Scan, prepared: Prepared, weights: Weights) -> list[Finding]:
    contract, findings = weights.contract, []
    rows, columns = scan.voxels.shape[:2]
    if min(rows, columns) < min(contract.shape) / 3:
        wanted = " × ".join(map(str, contract.shape))
        findings.append(Finding(DOUBTFUL, "tiny", {"rows": rows, "columns": columns, "wanted": wanted}))
    if scan.voxels.ndim == 3:
        step = 1 + max(rows, columns) // 2048  # of a huge picture some pixels tell as much
        colours = scan.voxels[::step, ::step].astype(np.float32)
        if float(np.ptp(colours, axis=2).mean()) > COLOUR_SHARE * max(float(np.ptp(colours)), 1.0):
            findings.append(Finding(DOUBTFUL, "coloured"))
    template = weights.extras.get("likeness.sketch")
    if template is not None:
        fit = likeness.match(likeness.sketch(prepared.tensor, contract), template.cpu(), contract)
        least = weights.header.likeness["match"]
        if fit.score < least:
            level = UNFIT if fit.score < least - 0.3 else DOUBTFUL
            findings.append(Finding(level, "no-such-picture", {"score": fit.score, "least": least}))
    return findings
