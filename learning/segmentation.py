"""Learning to segment from labelled heads: the loss, the loop with its checkpoints, the check on held-out heads.

It knows nothing of files of scans: heads come in, a trained network comes out. Its command line is
`train_segmenter.py`.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import model
from diagnosis.anatomy.measures import UNCALIBRATED, volumes_by_class
from diagnosis.anatomy.normalise import shape_of
from diagnosis.anatomy.segment import KIND, MEAN, SHAPE, Segmentation, SegmenterWeights, answer, load, segment
from diagnosis.anatomy.structures import brain_of
from networks.base import in_memory_format
from networks.segmenter import CLASSES, CUBE, Segmenter, to_cubes
from scans.prepare import prepare
from scans.read import read
from simulation.labelled import SAMPLE, LabelledHead, draw
from simulation.phantom import plain, render
from studies import HEAD, STUDIES, to_record

# Small structures weigh more at first, so that they come early; the weights fade to 1, or volumes would be biased.
EARLY_WEIGHTS = {"lateral": 2.0, "inferior_horn": 5.0, "third": 4.0, "fourth": 3.0, "hippocampus": 4.0}
KEPT = 0.2  # share of the cubes whose loss is taken in a step: the rest are much alike


@dataclass(frozen=True)
class Settings:
    steps: int = 4000
    rate: float = 2e-3
    warm_up: int = 100  # steps
    fall_from: float = 0.6  # share of the steps after which the rate falls
    whole_from: float = 0.885  # share of the steps after which samples are whole boxes, as scans will be shown
    early_until: float = 0.35  # share of the steps after which all classes weigh the same
    decay: float = 1e-3  # of weights
    average: float = 0.995  # of the running mean of weights that is kept
    seed: int = 0
    drawn_share: float = 0.85  # of the samples, from label maps, where there are both maps and simulated heads

    def falling(self, step: int) -> float:
        """1 until `fall_from`, then down to 0 at the last step."""
        start = self.fall_from * self.steps
        return 1.0 if step < start else max(0.0, (self.steps - step) / (self.steps - start))

    def overlap(self, step: int) -> float:
        """How much the Dice term weighs: 1 until the rate falls, 0 when half of that fall is done.

        Dice makes what is small and doubtful too large; cross-entropy leaves probabilities that add up to volumes.
        """
        return max(0.0, 2 * self.falling(step) - 1)

    def early(self, step: int) -> float:
        """1 at the first step, down to 0 at `early_until`."""
        return max(0.0, 1 - step / (self.early_until * self.steps))

    def rate_at(self, step: int) -> float:
        return self.rate * min(1.0, (step + 1) / self.warm_up) * (0.02 + 0.98 * self.falling(step))


@dataclass(frozen=True)
class Row:
    """One class of one held-out head."""

    head: str
    name: str
    dice: float
    truth: float  # ml
    value: float
    reach: float  # of the doubt: volume^⅔ of each side, summed


class Samples(Dataset):
    """Sample k of a seed is the same whoever asks, so that a run can stop and go on."""

    def __init__(
        self,
        maps: Sequence[LabelledHead],
        simulated: Sequence[LabelledHead],
        settings: Settings,
        start: int,
        shape: Sequence[int] = SAMPLE,
        whole: Sequence[int] = SHAPE,
    ):
        self.maps, self.simulated, self.settings = maps, simulated, settings
        self.start, self.shape, self.whole = start, shape, whole

    def __len__(self) -> int:
        return max(0, self.settings.steps - self.start)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        number = self.start + index
        rng = np.random.default_rng((self.settings.seed, number))
        share = self.settings.drawn_share if self.simulated else 1.0
        heads = self.maps if self.maps and rng.random() < share else self.simulated
        head = heads[int(rng.integers(len(heads)))]
        whole = number >= self.settings.whole_from * self.settings.steps
        shape, centre = self.shape, None
        if whole:  # how much of a sample is brain decides what instance norm makes of it
            shape, centre = self.whole, (np.array(head.low) + np.array(head.high)) / 2 + rng.normal(0, 6, 3)
        drawn = draw(head, (self.settings.seed, number, 1), shape, centre=centre)
        return drawn.image.half(), drawn.classes


def loss_of(scores: Tensor, truth: Tensor, weights: Tensor, overlap: float = 1.0) -> Tensor:
    """Weighted cross-entropy plus `overlap` × (1 − mean Dice); scores (8, classes, M), truth (8, M)."""
    logs = scores.log_softmax(1)
    there = logs.gather(1, truth[:, None])[:, 0].flatten()
    truth = truth.flatten()
    share = weights[truth]
    entropy = -(share * there).sum() / share.sum()
    shared = logs.new_zeros(len(weights)).index_add(0, truth, there.exp())[1:]
    sizes, found = torch.bincount(truth, minlength=len(weights))[1:], logs.exp().sum((0, 2))[1:]
    dice = (2 * shared + 20) / (sizes + found + 20)
    return entropy + overlap * (1 - dice[sizes > 0]).mean() if (sizes > 0).any() else entropy


def take_step(
    network: Segmenter,
    optimiser: torch.optim.Optimizer,
    image: Tensor,
    classes: Tensor,
    weights: Tensor,
    kept: Tensor,
    overlap: float = 1.0,
) -> float:
    """One step on one volume (1, X, Y, Z); `kept` picks the cubes whose loss is taken."""
    features = network.features(to_cubes(image))
    rows = features.permute(0, 2, 3, 4, 1).flatten(0, 3)[kept]
    truth = to_cubes(classes).flatten(0, 3)[kept].T.long()  # (8, M)
    loss = loss_of(network.answer(rows), truth, weights, overlap)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    if not torch.isfinite(norm):  # seen where bfloat16 meets levels of a few voxels; one such step would end all
        return math.nan
    optimiser.step()
    return float(loss.detach())


def train(
    maps: Sequence[LabelledHead],
    simulated: Sequence[LabelledHead],
    settings: Settings,
    state: Path,
    device: torch.device,
    workers: int = 1,
    say: Callable[[str], None] = print,
    check: Callable[[Segmenter], str] | None = None,
    check_every: int = 500,
    keep_every: int = 100,
    shape: Sequence[int] = SAMPLE,
    whole: Sequence[int] = SHAPE,
    begin: SegmenterWeights | None = None,
) -> tuple[Segmenter, dict]:
    """The network of running means after `settings.steps`; goes on from `state` where that file lies.

    `begin` is what a new run begins with; without it, chance.
    """
    torch.manual_seed(settings.seed)
    network = in_memory_format(Segmenter().to(device), torch.channels_last_3d)
    if begin:
        network.load_state_dict(begin.network.state_dict())
    mean = Segmenter().to(device).requires_grad_(False)
    mean.load_state_dict(network.state_dict())
    optimiser = torch.optim.AdamW(
        network.parameters(), settings.rate, betas=(0.9, 0.98), weight_decay=settings.decay
    )
    step, history = 0, []
    if state.exists():
        saved = torch.load(state, map_location=device, weights_only=True)
        network.load_state_dict(saved["network"])
        mean.load_state_dict(saved["mean"])
        optimiser.load_state_dict(saved["optimiser"])
        step, history = saved["step"], saved["history"]
        if begin and begin.sha256 not in [part.get("begun with") for part in history]:
            raise ValueError(f"{state}: its run did not begin with {begin.name}; remove it, or give another --out")
        if step > settings.steps:
            raise ValueError(f"{state}: its run is past step {settings.steps}; give more --steps")
        say(f"goes on from step {step} of {settings.steps}")
    history = [
        *history,
        {
            "from": step,
            "maps": [head.name for head in maps],
            "simulated": len(simulated),
            "settings": asdict(settings),
        },
    ]
    if begin and not step:
        history = [*begin.header["training"]["history"], {**history[-1], "begun with": begin.sha256}]

    def keep() -> None:
        part = state.with_name(f".{state.name}")
        torch.save(
            {
                "network": network.state_dict(),
                "mean": mean.state_dict(),
                "step": step,
                "history": history,
                "optimiser": optimiser.state_dict(),
            },
            part,
        )
        part.replace(state)

    loader = DataLoader(
        Samples(maps, simulated, settings, step, shape, whole),
        batch_size=1,
        num_workers=workers,
        prefetch_factor=3 if workers else None,
    )
    early = torch.tensor([EARLY_WEIGHTS.get(name, 1.0) for name in CLASSES], device=device)
    losses, began = [], time.monotonic()
    for image, classes in loader:
        rate, weights = settings.rate_at(step), 1 + (early - 1) * settings.early(step)
        for group in optimiser.param_groups:
            group["lr"] = rate
        image, classes = image.to(device).float(), classes.to(device)
        chance = torch.Generator().manual_seed(settings.seed + step)  # so that a run that stopped goes on the same
        kept = (torch.rand(image.numel() // CUBE, generator=chance) < KEPT).to(device)
        losses.append(take_step(network, optimiser, image, classes, weights, kept, settings.overlap(step)))
        step += 1
        if math.isnan(losses[-1]):
            say(f"step {step}: its gradients are not finite, so it is left out")
        share = min(settings.average, step / (step + 10))
        with torch.no_grad():
            for slow, now in zip(mean.parameters(), network.parameters(), strict=True):
                slow.lerp_(now, 1 - share)
        if step % 50 == 0:
            each = (time.monotonic() - began) / len(losses)
            say(f"step {step}: loss {np.nanmean(losses[-50:]):.3f}, rate {rate:.1e}, {each:.2f} s a step")
        if step % keep_every == 0 or step == settings.steps:
            keep()
        if check and step % check_every == 0 and step < settings.steps:
            say(check(mean))
    return mean.eval(), {"history": history, "steps": step}


# --- the check on held-out heads, and what it teaches about volumes -----------------------------------------


@torch.inference_mode()
def on_held_out(network: Segmenter, heads: Sequence[LabelledHead], draws: int = 1, seed: int = 99) -> list[Row]:
    """Every class of every draw of every held-out head, T1 brightness drawn: what there is and what is found."""
    device = next(network.parameters()).device
    rows = []
    for number, head in enumerate(heads):
        centre = (np.array(head.low) + np.array(head.high)) / 2
        for turn in range(draws):
            drawn = draw(head, (seed, number, turn), SHAPE, strength=0.3, t1_share=1.0, centre=centre)
            cubes, shares, classes = answer(network, drawn.image[None].to(device))
            truth = drawn.classes.numpy()
            found = Segmentation(classes, cubes, shares, np.array([SHAPE[0] / 2, 0.0, 0.0]), HEAD.spacing, {}, "")
            volumes = volumes_by_class(found, raw=True)
            for place, name in enumerate(CLASSES[1:], 1):
                here, there = classes == place, truth == place
                value = sum(volumes[name, side][0] for side in ("left", "right"))
                reach = sum(volumes[name, side][2] - volumes[name, side][0] for side in ("left", "right"))
                dice = 2 * (here & there).sum() / max(1, here.sum() + there.sum())
                ml = there.sum() * float(np.prod(HEAD.spacing)) / 1000
                rows.append(Row(head.name, name, float(dice), float(ml), float(value), float(reach)))
    return rows


def scores_of(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """By class: mean Dice, and the found volumes' mean as a share of the true ones'."""
    scores = {}
    for name in CLASSES[1:]:
        mine = [row for row in rows if row.name == name]
        ratio = sum(row.value for row in mine) / max(1e-6, sum(row.truth for row in mine))
        scores[name] = {"dice": round(float(np.mean([row.dice for row in mine])), 4), "ratio": round(ratio, 4)}
    return scores


def calibration_of(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """By class: the factor on volumes, and which share of volume^⅔ lies around nine of ten true volumes."""
    calibration = {}
    for name in CLASSES[1:]:
        mine = [row for row in rows if row.name == name and row.truth > 0.1 and row.value > 0]
        factor = float(np.median([row.truth / row.value for row in mine])) if mine else 1.0
        needed = [abs(row.truth - factor * row.value) / (factor ** (2 / 3) * row.reach) for row in mine]
        doubt = float(np.quantile(needed, 0.9, method="higher")) if needed else UNCALIBRATED["doubt"]
        calibration[name] = {"factor": round(factor, 4), "doubt": round(doubt, 3)}
    return calibration


def write(path: Path, network: Segmenter, header: dict[str, Any]) -> Path:
    """A weights file of 16-bit numbers, which describes itself like those of the studies, without a mean head."""
    state = {f"network.{name}": value.half() for name, value in network.state_dict().items()}
    known = {
        "format": model.FORMAT,
        "kind": KIND,
        "contract": to_record(STUDIES["alzheimers"])["contract"],
        "contract_hash": HEAD.hash(),
        "classes": list(CLASSES),
        "network": {"name": "Segmenter", "arguments": {}},
    }
    return model.write(path, state, known | header)


def add_mean(path: Path) -> bool:
    """Put the shape of the mean head into a weights file: the ICBM 152 template's, as its network outlines it.

    Whether it outlines any brain there; without one the file stays as it was.
    """
    weights = load(path, "cpu")
    found = segment(weights, prepare(read(render(plain()).to_bytes(), "icbm152.nii"), HEAD))
    mean = shape_of(brain_of(found), found).mul_(255).round_().to(torch.uint8)
    if not bool(mean[0].any()):
        return False
    state, extras = model.read_tensors(path)
    tensors = {f"network.{name}": value for name, value in state.items()}
    tensors |= {f"extras.{name}": value for name, value in (extras | {MEAN: mean}).items()}
    model.write(path, tensors, weights.header)
    return True
