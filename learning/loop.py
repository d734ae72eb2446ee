"""The training loop: schedule, loss, epochs, checkpoints; in one process or in many under torchrun.

It is given cases that are split and sound; finding them is `data`'s work, judging the result `scoring.scores`'s.
Every epoch is a pure function of (settings, epoch, state before it), so a run that was killed continues exactly.
"""

import csv
import io
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader

import datasets
import model
from data.cache import Cache
from data.cases import Case
from data.splits import data_folder
from diagnosis.anatomy import structures
from learning.anatomy import severities
from learning.boards import boards
from learning.losses import Goal, loss_of, score_of, validation
from learning.processes import Halt, world
from learning.settings import Settings, TrainError, shown
from learning.transfer import AfterStem, MirrorImages, StemOutputs, copy_fitting, stem_key, stem_outputs
from networks.base import Network, in_memory_format
from networks.forward import Forward
from scans.files import write_bytes, write_whole
from scans.progress import progress
from scoring.plots import curves
from studies import Study

OPTIMISERS: dict[str, Callable[[list[nn.Parameter], Settings], torch.optim.Optimizer]] = {
    "adamw": lambda p, s: torch.optim.AdamW(p, s.lr, weight_decay=s.decay),
    "adam": lambda p, s: torch.optim.Adam(p, s.lr, weight_decay=s.decay),
    "sgd": lambda p, s: torch.optim.SGD(p, s.lr, momentum=s.momentum, weight_decay=s.decay),
}
SCHEDULES = ("cosine", "one-cycle", "constant")


# ---- what an epoch is made of


def epoch_order(indices: Sequence[int], seed: int, epoch: int, size: int) -> list[int]:
    """The epoch's order of cases: shuffled by (seed, epoch) alone, filled up from its start to whole steps."""
    generator = torch.Generator().manual_seed(seed_of(seed, epoch))
    shuffled = [indices[i] for i in torch.randperm(len(indices), generator=generator).tolist()]
    steps = math.ceil(len(shuffled) / size)
    return (shuffled * math.ceil(size * steps / len(shuffled)))[: size * steps]


def seed_of(*numbers: int) -> int:
    """One seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def rate_share(schedule: str, done: float) -> float:
    """The share of the full learning rate when `done` (0 to 1) of all steps are done."""
    if schedule == "constant":
        return 1.0
    warm, start, end = (0.3, 0.04, 1e-4) if schedule == "one-cycle" else (0.03, 0.1, 1e-2)
    if done < warm:
        return 1 - (1 - start) * (1 + math.cos(math.pi * done / warm)) / 2
    return end + (1 - end) * (1 + math.cos(math.pi * (done - warm) / (1 - warm))) / 2


def cases_of(cases: list[Case], split: str) -> list[Case]:
    return [case for case in cases if case.split == split]


PLAIN_FIELDS = ("epoch", "step", "best", "best_score", "best_epoch", "history")  # of State, kept as they are


@dataclass(eq=False)
class State:
    """All that changes while training; a checkpoint is this, the settings and the facts about the data."""

    network: Network
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    epoch: int = 0  # whole epochs done
    step: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_score: float = math.inf  # by `--select`: the lower, the better
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        parts = {name: getattr(self, name).state_dict() for name in ("network", "optimiser", "scaler")}
        return parts | {name: getattr(self, name) for name in PLAIN_FIELDS}

    def restore(self, record: dict[str, Any]) -> None:
        self.network.load_state_dict(record["network"])
        self.optimiser.load_state_dict(record["optimiser"])
        if record["scaler"] and self.scaler.is_enabled():  # a run may move between a GPU and a processor
            self.scaler.load_state_dict(record["scaler"])
        renamed = {"best_score": record.get("best_loss")} | record  # as runs of old call it
        for name in PLAIN_FIELDS:
            setattr(self, name, renamed[name])


def new_state(study: Study, settings: Settings, device: torch.device, precision: str) -> State:
    """The network with the seed's first weights, or others' where asked for, and its optimiser."""
    torch.manual_seed(settings.seed)
    network = built(study, settings).to(device)
    in_memory_format(network, memory_format(study))
    if settings.init:
        left = copy_fitting(network, Path(settings.init))
        if left is None:
            raise TrainError(
                f"--init {Path(settings.init).name}: none of its tensors fits; give weights of the same network"
            )
        print(
            f"began with {Path(settings.init).name}" + (f", but for {', '.join(left)}" if left else ""),
            flush=True,
        )
    if settings.freeze:
        if not network.stem():
            raise TrainError(f"--freeze: {settings.network} has no part to keep as it is; leave it out")
        for module in network.stem():
            module.requires_grad_(False)
    trained = [p for p in network.parameters() if p.requires_grad]
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "amp")
    return State(network, OPTIMISERS[settings.optimiser](trained, settings), scaler)


def built(study: Study, settings: Settings) -> Network:
    """The network, tried on a grid that is not its study's own before anything is prepared for it."""
    shape = (study.contract.planes or study.contract.shape[0], *study.contract.shape[1:])
    sizes = "×".join(map(str, shape))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Initializing zero-element")  # a layer that nothing is left for
            network = model.network_class(settings.network)(len(study.labels), **settings.arguments)
        if settings.shape or settings.crop or ":" in settings.network:
            with torch.no_grad():
                network.eval()(torch.zeros(1, study.contract.channels, *shape))
    except TypeError as error:
        raise TrainError(f"{settings.network} does not take {settings.arguments}: {error}") from error
    except (RuntimeError, ValueError, UserWarning) as error:
        asked = "--crop: " if settings.crop else "--shape: " if settings.shape else ""
        raise TrainError(
            f"{asked}{settings.network} cannot look at {sizes} ({str(error).splitlines()[0][:120]}); "
            f"{'give a larger grid' if asked else 'change it, or the contract of the study'}"
        ) from error
    return network.train()


def memory_format(study: Study) -> torch.memory_format:
    return torch.channels_last_3d if study.contract.kind == "volume" else torch.channels_last


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


def batches(
    scans: datasets.Scans | StemOutputs | MirrorImages, indices: Sequence[int], size: int, workers: int
) -> Iterator[list[Tensor]]:
    own = torch.Generator().manual_seed(0)  # loading draws nothing from the generator that dropout uses
    return iter(DataLoader(scans, sampler=indices, batch_size=size, num_workers=workers, generator=own))


class Trainer:
    """One run: its state, its data and the loop over epochs."""

    def __init__(self, study: Study, settings: Settings, out: Path, device: torch.device) -> None:
        self.study, self.settings, self.out, self.device = study, settings, out, device
        self.cases: list[Case] = []
        self.facts: dict[str, Any] = {}
        self.stem_given: dict[str, StemOutputs] = {}  # what the stem that is kept gave, by part
        self.to_input = structures.input_of(study.contract, model.WEIGHTS)
        limit = int(settings.cache_limit * 1e9)
        self.cache = Cache(Path(settings.cache), study.contract, limit, self.to_input, settings.shards)
        self.precision = settings.precision or ("amp" if device.type == "cuda" else "fp32")
        if self.precision == "amp" and device.type != "cuda":
            raise TrainError("--precision amp needs CUDA; use bf16 or fp32 on a processor")
        self.state = new_state(study, settings, device, self.precision)

    @property
    def segmenter(self) -> str | None:
        """The hash of the segmenter that outlines what is learned from, where one does."""
        return self.to_input.weights.sha256 if self.to_input else None

    def indices(self, epoch: int) -> list[int]:
        """The training cases that an epoch sees: at first only the ends of the order, if so asked."""
        keep = set(self.study.codes)
        if epoch < self.settings.ends_first and self.study.ordered:
            severities = {label.code: label.severity or 0.0 for label in self.study.labels}
            ends = min(severities.values()), max(severities.values())
            keep = {code for code, severity in severities.items() if severity in ends}
        cases = cases_of(self.cases, "train")
        chosen = [i for i, case in enumerate(cases) if self.study.target or case.label in keep]
        if not chosen:
            raise TrainError("no training case is left; check the split")
        return chosen

    def scans(self, name: str, halt: Halt) -> datasets.Scans | StemOutputs:
        """The cases of a part as the trained layers see them: prepared, or already through the frozen ones."""
        cases, settings = cases_of(self.cases, name), self.settings
        if not settings.freeze:
            augment = settings.augment if name == "train" else "none"
            return datasets.Scans(cases, self.study, self.cache, augment, settings.seed, self.severities(cases))
        if name not in self.stem_given:
            plain = datasets.Scans(cases, self.study, self.cache, severities=self.severities(cases))
            mirror = name == "train" and settings.augment != "none" and self.study.contract.kind == "volume"
            self.stem_given[name] = StemOutputs(
                self.through_stem(plain, f"frozen layers, {name}", halt),
                plain.targets,
                self.through_stem(plain, "frozen layers, mirror images", halt, mirrored=True) if mirror else None,
                settings.seed,
            )
        return self.stem_given[name]

    def severities(self, cases: list[Case]) -> list[float] | None:
        """Each case's own severity where it is learned and the data tell it; None leaves that of its class."""
        if not (self.settings.severity_weight and self.study.ordered):
            return None
        return severities(cases, self.study, data_folder(Path(self.settings.data)))

    def through_stem(self, plain: datasets.Scans, title: str, halt: Halt, mirrored: bool = False) -> Tensor:
        """What the frozen layers give for scans or for their mirror images: computed once, then kept."""
        network, settings, count = self.state.network.eval(), self.settings, len(plain)
        shown = MirrorImages(plain) if mirrored else plain
        loader = batches(shown, range(count), settings.batch, settings.workers)
        values = self.cache.made(
            stem_key(network, self.cache, [case.file for case in plain.cases], mirrored),
            lambda: stem_outputs(network, loader, count, title, self.device, halt.check),
        )
        return torch.from_numpy(values)

    def fit(self, halt: Halt) -> None:
        """Trains from the epoch where the state stands to the last, or until patience runs out."""
        settings, state = self.settings, self.state
        rank, many = world()
        local = settings.batch // many
        if local * many != settings.batch:
            raise TrainError(f"--batch {settings.batch} does not divide among {many} processes; use a multiple")
        size = settings.batch * settings.accumulate
        cases = cases_of(self.cases, "train")
        train = self.scans("train", halt)
        loss = loss_of(self.study, cases, settings, self.device)
        network = among_processes(AfterStem(state.network) if settings.freeze else state.network, self.device)
        total = sum(math.ceil(len(self.indices(e)) / size) for e in range(settings.epochs))
        told = {name: shown(name, value) for name, value in asdict(settings).items()}
        watched = boards(self.out, told, state.epoch) if rank == 0 else []
        while state.epoch < settings.epochs and not self.out_of_patience():
            began, epoch = time.monotonic(), state.epoch
            torch.manual_seed(seed_of(settings.seed, epoch, rank))  # dropout is a function of the epoch too
            train.set_epoch(epoch)
            plan = epoch_order(self.indices(epoch), settings.seed, epoch, size)
            starts = range(rank * local, len(plan), settings.batch)
            mine = [i for start in starts for i in plan[start : start + local]]
            loader = batches(train, mine, local, settings.workers)
            trained = self.epoch(network, loader, len(plan) // size, total, loss, halt)
            row = {"epoch": epoch + 1, "lr": state.optimiser.param_groups[0]["lr"], **trained}
            row |= self.validate(loss, halt)
            state.epoch = epoch + 1
            state.history.append(row | {"seconds": round(time.monotonic() - began, 1)})
            if score_of(row, settings.select) < state.best_score or not state.best:
                state.best_score, state.best_epoch = score_of(row, settings.select), state.epoch
                state.best = {k: v.detach().cpu().clone() for k, v in state.network.state_dict().items()}
            if rank == 0:
                self.save()
                print("  ".join(f"{k} {v:.4g}" for k, v in state.history[-1].items()), flush=True)
                for board in watched:
                    board.add({name: row[name] for name in row if name != "epoch"}, state.epoch)
        for board in watched:
            board.close()

    def out_of_patience(self) -> bool:
        patience = self.settings.patience
        return bool(patience) and self.state.epoch - self.state.best_epoch >= patience

    def epoch(
        self, network: nn.Module, loader: Iterator[list[Tensor]], steps: int, total: int, loss: Goal, halt: Halt
    ) -> dict[str, float]:
        """One pass over the training cases; loss and accuracy on the way, the means over all processes."""
        settings, state, device = self.settings, self.state, self.device
        rank, many = world()
        alone = network.no_sync if isinstance(network, nn.parallel.DistributedDataParallel) else nullcontext
        network.train()
        sums = torch.zeros(2, device=device)  # of losses, of shares answered rightly
        title = f"epoch {state.epoch + 1}/{settings.epochs}"
        bar = progress(range(steps), title, unit="step", quiet=rank != 0)
        for step in bar:
            lr = settings.lr * rate_share(settings.schedule, state.step / total)
            for group in state.optimiser.param_groups:
                group["lr"] = lr
            for turn in range(settings.accumulate):
                x, y = next(loader)  # (B, C, …), (B,)
                x = (
                    x.to(device, non_blocking=True)
                    if settings.freeze
                    else x.to(device, memory_format=memory_format(self.study), non_blocking=True)
                )
                y = y.to(device, non_blocking=True)
                last = turn == settings.accumulate - 1
                with nullcontext() if last else alone(), autocast(self.precision, device):
                    logits = network(x)  # (B, K)
                    value = loss(logits, y) / settings.accumulate
                    state.scaler.scale(value).backward()
                right = loss.measured(logits.detach(), y) / settings.accumulate
                sums += torch.stack([value.detach(), right])
            state.scaler.unscale_(state.optimiser)
            if settings.clip:
                nn.utils.clip_grad_norm_(state.network.parameters(), settings.clip)
            state.scaler.step(state.optimiser)
            state.scaler.update()
            state.optimiser.zero_grad(set_to_none=True)
            state.step += 1
            if not bar.disable:
                bar.set_postfix(loss=f"{float(sums[0]) / (step + 1):.4f}")
            halt.check()
        if many > 1:
            dist.all_reduce(sums)
        mean, measured = (sums / (steps * many)).tolist()
        if not math.isfinite(mean):
            raise TrainError(
                f"the loss is {mean} in epoch {state.epoch + 1}; use a smaller --lr than "
                f"{settings.lr}, --clip 1, or --precision fp32"
            )
        return {"train_loss": mean, f"train_{loss.measure}": measured}

    @torch.no_grad()
    def validate(self, loss: Goal, halt: Halt) -> dict[str, float]:
        """Loss, accuracy and, for ordered classes, correlation of the expected severity, on validation cases."""
        rank, many = world()
        cases, network = cases_of(self.cases, "val"), self.state.network
        for buffer in network.buffers() if many > 1 else ():
            dist.broadcast(buffer, src=0)  # without this each process would judge by its own batch-norm statistics
        network.eval()
        scans = self.scans("val", halt)
        mine = range(rank, len(cases), many)
        parts: list[Any] = []
        fast = self.device.type == "cpu" and self.precision == "fp32" and not self.settings.freeze
        forward = Forward(network) if fast else None
        whole = AfterStem(network) if self.settings.freeze else network
        for x, y in batches(scans, mine, max(1, self.settings.batch // many), self.settings.workers):
            with autocast(self.precision, self.device):
                logits = forward(x)[0] if forward else whole(x.to(self.device))
            parts.append((logits.float().cpu(), y))
            if many == 1:
                halt.check()
        if many > 1:
            everyone: list[Any] = [None] * many
            dist.all_gather_object(everyone, parts)
            parts = [pair for theirs in everyone for pair in theirs]
        logits, y = torch.cat([pair[0] for pair in parts]), torch.cat([pair[1] for pair in parts])  # (n, K), (n,)
        return validation(self.study, loss.on("cpu"), logits, y)

    # ---- what is kept

    def save(self) -> None:
        """Writes the checkpoint, then the log and its drawing, each whole or not at all."""
        record = {"settings": asdict(self.settings), "facts": self.facts, "state": self.state.record()}
        write_whole(self.out / "last.pt", lambda file: torch.save(record, file))
        if self.state.history:
            text = io.StringIO(newline="")
            rows = csv.DictWriter(text, list(dict.fromkeys(key for row in self.state.history for key in row)))
            rows.writeheader()
            rows.writerows(self.state.history)
            write_bytes(self.out / "log.csv", text.getvalue().encode())
            write_bytes(self.out / "curves.png", curves(self.state.history))


def among_processes(network: nn.Module, device: torch.device) -> nn.Module:
    """The network as many processes train it together; alone, the network itself."""
    if world()[1] == 1:
        return network
    if device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return nn.parallel.DistributedDataParallel(
        laid_out(network), [device.index] if device.type == "cuda" else None
    )


def laid_out(network: nn.Module) -> nn.Module:
    """The network, its gradients laid out as its weights are, which gathering them from many processes wants."""
    for weights in network.parameters():
        if (
            1 in weights.shape and weights.requires_grad
        ):  # along one channel strides mean nothing, and come otherwise
            weights.register_hook(partial(laid_as, weights.stride()))
    return network


def laid_as(strides: tuple[int, ...], gradient: Tensor) -> Tensor:
    if gradient.stride() == strides:
        return gradient
    return torch.empty_strided(gradient.shape, strides, dtype=gradient.dtype, device=gradient.device).copy_(
        gradient
    )
