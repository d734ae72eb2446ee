"""A training run from labelled scans to a weights file: opened or resumed, trained, judged, written."""

import errno
import os
import re
import secrets
import statistics
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import datasets
import model
from data.cache import Cache, ToInput
from data.cases import Case, DataError, find, notes
from data.leaks import Leaks, contradictions, deduplicate, fingerprints, leaks
from data.splits import assign, check_balance, data_folder, read_split, write_split
from learning import transfer
from learning.anatomy import anatomy
from learning.loop import Trainer, cases_of
from learning.processes import Halt, Interrupted, join, shared, world
from learning.provenance import header_of
from learning.settings import (
    EXTENDABLE,
    MOVABLE,
    Given,
    Settings,
    TrainError,
    check_limits,
    command,
    from_record,
    on_grid,
    settle,
    shown,
    study_learned,
)
from networks.base import in_memory_format
from networks.header import Header
from scans.files import write_bytes
from scans.scan import ScanError
from scoring.calibration import example, fit_calibration, fit_likeness, fit_residuals
from scoring.card import card
from scoring.predictions import Predictions, predict, readable
from scoring.results import write as write_results
from scoring.scores import scores
from studies import Study, to_json

ELASTIC = "TORCHELASTIC_RUN_ID"  # what torchrun sets in each process
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def gather_cases(study: Study, settings: Settings, out: Path, cache: Cache) -> tuple[list[Case], dict[str, Any]]:
    """The cases, read, split and free of leaks; how many leaks were allowed and how many duplicates left out.

    Writes `split.csv`.
    """
    data = Path(settings.data)
    if settings.split:
        cases = read_split(settings.split, data_folder(data), study)
    else:
        cases = find(data, study, settings.subject_regex, settings.label_column)
    balance = settings.balance or []
    check_balance(cases, balance)
    flow = [step("found", cases)]
    cases = readable(cases, cache, settings.workers)
    flow.append(step("readable", cases))
    prints = fingerprints(cases)
    if settings.deduplicate:
        cases = deduplicated(cases, leaks(cases, prints))
        flow.append(step("not identical to others", cases))
    cases = assign(cases, settings.seed, settings.val, settings.test, balance, bool(study.target))
    for split in ("train", "val"):
        if not cases_of(cases, split):
            raise TrainError(
                f"{data}: no case for {split}; give more subjects, or another --val than {settings.val}"
            )
    for note in notes(cases, study):
        print(f"note: {note}", file=sys.stderr)
    leaking = leaks(cases, prints)
    alike = any(why in ("same bytes", "same pixels") for why, *_ in leaking.pairs)
    if leaking.pairs and not settings.allow_leak:
        raise TrainError(
            f"{leaking}\nTake one of each pair out or split again"
            f"{'; --deduplicate keeps one of each group of identical pictures' if alike else ''}; --allow-leak "
            "trains all the same and says so on the card of the weights file."
        )
    if leaking.pairs or leaking.duplicates:
        print(f"warning: {leaking}", file=sys.stderr)
    write_split(out / "split.csv", cases, data_folder(data))
    flow += [step(f"in {split}", cases_of(cases, split)) for split in ("train", "val", "test")]
    return cases, {"leaks": len(leaking.pairs), "duplicates": flow[1]["scans"] - len(cases), "flow": flow}


def step(name: str, cases: list[Case]) -> dict[str, Any]:
    """A step of the way from the files found to the parts: how many scans and people are left."""
    return {"step": name, "scans": len(cases), "people": len({case.subject for case in cases})}


def deduplicated(cases: list[Case], groups: Leaks) -> list[Case]:
    """One case of each group of identical pictures; groups that contradict themselves are named and left out."""
    kept, contradictory = deduplicate(cases, groups, refuse=False), contradictions(groups)
    print(f"left out {len(cases) - len(kept)} of {len(cases)} scans, identical to others")
    if contradictory:
        print(
            f"{len(contradictory)} groups of them left out whole, for identical pictures have different labels:",
            *contradictory,
            sep="\n  ",
            file=sys.stderr,
        )
    return kept


def finish(run: Trainer, halt: Halt) -> Path:
    """Calibrates on validation subjects, scores on test subjects, writes the weights file and its card."""
    study, settings, state = run.study, run.settings, run.state
    if not state.best:
        raise TrainError("no epoch is done yet, so there is nothing to write; go on with --resume")
    network = state.network
    network.load_state_dict(state.best)
    in_memory_format(network, torch.contiguous_format).eval()
    weights = model.Weights("", "", header_of(run), network, run.device)
    predictions = {
        split: predict(
            weights, cases_of(run.cases, split), run.cache, progress=halt.check, sketches=split != "test"
        )
        for split in ("train", "val", "test")
    }
    header, extras = judged(weights, predictions, settings, run.to_input)
    if run.to_input is not None:  # which brings the segmenter
        val, folder = cases_of(run.cases, "val"), data_folder(Path(settings.data))
        header = replace(header, anatomy=anatomy(val, study, run.to_input.weights, folder, halt.check))
        header = replace(header, card=card(header))
    path = run.out / file_name(study, settings)
    model.save(path, network, header, extras)
    others = [predictions[split] for split in ("train", "val")]
    write_results(run.out, header, predictions["test"], data_folder(Path(settings.data)), others)
    losses = {
        "settings": header.training["settings"],
        "classes": dict(enumerate(study.codes)),
        "best_epoch": state.best_epoch,
        "epochs": state.history,
    }
    write_bytes(run.out / "losses.json", to_json(losses, indent=1).encode())
    return path


def file_name(study: Study, settings: Settings) -> str:
    """The weights file's name, by the run's too: no two runs side by side, nor the bundled file, are called so."""

    def plain(name: str) -> str:
        return re.sub(r"[^A-Za-z0-9_=,-]+", "-", name)

    run = plain(Path(settings.out).resolve().name.removeprefix(f"{study.key}-")) or "run"
    return f"{study.key}.{plain(settings.network)}.{run}.safetensors"


def judged(
    weights: model.Weights,
    predictions: dict[str, Predictions],
    settings: Settings,
    to_input: ToInput | None = None,
) -> tuple[Header, dict[str, torch.Tensor]]:
    """The header with calibration, likeness, example, scores and card; the tensors that likeness needs."""
    header, study, val = weights.header, weights.study, predictions["val"]
    cohort = f"“{shown('data', settings.data)}”"
    people = len(set(val.subjects))
    if study.target:
        calibration = fit_residuals(study.target.value(val.logits[:, 0]), val.targets(study), cohort, people)
    else:
        calibration = fit_calibration(val.logits, val.targets(study), cohort, people, study.codes)
    likeness, extras = fit_likeness(predictions["train"], val, study.contract)
    header = replace(header, calibration=calibration, likeness=likeness)
    if settings.example:
        header = replace(
            header, example=example(replace(weights, header=header), Path(settings.example), to_input)
        )
    if predictions["test"].files:
        measured = scores(predictions["test"], header, rounds=settings.rounds)
        header = replace(header, scores={**measured, "cohort": cohort})
    return replace(header, card=card(header)), extras


def open_run(given: Given) -> tuple[Trainer, Path]:
    """A new run, or one taken up again, ready to train."""
    record = None
    given = dict(given)
    for name in given.pop("allow_network", []):
        model.allow_network(name)
    if "resume" in given:
        out = Path(given["resume"])
        record, settings = resumed(out, given)
    else:
        settings = shared(settle(given))
        out = Path(settings.out)
        record = begun(out, settings)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = join(model.pick_device(settings.device))
    settings = shared(settings)
    study, settings = on_grid(study_learned(settings), settings)
    out = Path(shared(str(out)))
    run = Trainer(study, settings, out, device)
    if record:
        run.cases = read_split(out / "split.csv", data_folder(Path(settings.data)))
        run.facts = known_facts(record["facts"])
        if run.facts["segmenter"] not in (None, run.segmenter):
            raise TrainError(f"{out}: began with another {model.SEGMENTER} than the one here; put that one back")
        run.study = scaled(run.study, run.cases)
        run.state.restore(record["state"])
        if world()[0] == 0:
            prepare_again(run)
        run.cache.contents = shared(run.cache.contents)
        return run, out
    run.facts |= {"started": load_imagenet(run), "salt": secrets.token_hex(8)}
    run.facts |= {"began": f"{datetime.now():%Y-%m-%d %H:%M}", "segmenter": run.segmenter}
    out.mkdir(parents=True, exist_ok=True)
    gathered = gather_cases(study, settings, out, run.cache) if world()[0] == 0 else None
    run.cases, facts = shared(gathered)
    run.cache.contents = shared(run.cache.contents)  # so that no process hashes every scan in every epoch
    run.facts |= facts
    run.study = scaled(run.study, run.cases)
    if world()[0] == 0:
        run.save()
    return run, out


def prepare_again(run: Trainer) -> None:
    """Prepare or pack what the cache or the shards lack of a run that is taken up again."""
    _, failures = datasets.check_readable(run.cases, run.cache, run.settings.workers)
    if failures:
        raise TrainError(
            f"{len(failures)} of {len(run.cases)} files that the run began with cannot be read any more; put them "
            f"back, or begin a new run:{datasets.listed(failures)}"
        )


def begun(out: Path, settings: Settings) -> dict[str, Any] | None:
    """The checkpoint of this very run, where torchrun starts it again after a process was lost; None at first."""
    if not (out / "last.pt").exists():
        return None
    if ELASTIC in os.environ:
        record = torch.load(out / "last.pt", map_location="cpu", weights_only=True)
        if from_record(record["settings"]) == on_grid(study_learned(settings), settings)[1]:
            return record
    raise TrainError(f"{out}: holds a run already; go on with --resume {out}, or choose another --out")


def scaled(study: Study, cases: list[Case]) -> Study:
    """A study of a number with mean and spread of those to learn from, which scale the network's output."""
    if study.target is None:
        return study
    values = [float(case.label) for case in cases_of(cases, "train")]
    mean, deviation = statistics.fmean(values), statistics.pstdev(values)
    if not deviation:
        raise TrainError(f"every training case has the {study.codes[0]} {mean:g}; there is nothing to learn from")
    return replace(study, target=replace(study.target, mean=mean, deviation=deviation))


def resumed(out: Path, given: Given) -> tuple[dict[str, Any], Settings]:
    """The checkpoint of a run, and its settings with what the command line may change of them."""
    if not (out / "last.pt").is_file():
        raise TrainError(f"{out}: no last.pt in it, so nothing to resume; give the folder of a run")
    fixed = sorted(set(given) - MOVABLE - EXTENDABLE - {"resume", "finish"})
    if fixed:
        names = ", ".join("--" + key.replace("_", "-") for key in fixed)
        raise TrainError(f"{names}: fixed when the run began; leave it out, or begin a new run")
    record = torch.load(out / "last.pt", map_location="cpu", weights_only=True)
    kept = from_record(record["settings"])
    changes = {key: given[key] for key in set(given) & (MOVABLE | EXTENDABLE)}
    done = record["state"]["epoch"]
    if changes.get("epochs", done) < done:
        raise TrainError(f"--epochs {changes['epochs']}: {done} are done already; give more, or --finish")
    if set(changes) & EXTENDABLE:
        more = {key: changes[key] for key in sorted(EXTENDABLE & set(changes))}
        changes["command"] = f"{kept.command}\n{command({'resume': str(out), **more})}"
    settings = replace(kept, **changes)
    check_limits(settings)
    return record, settings


def known_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """A run's facts by today's names; runs of old say `doubles`, and nothing of what they started with."""
    duplicates = facts.get("duplicates", facts.get("doubles", 0))
    return {
        "started": None,
        "salt": "",
        "began": "",
        "flow": [],
        "segmenter": None,
        **facts,
        "duplicates": duplicates,
    }


def load_imagenet(run: Trainer) -> str | None:
    """ImageNet weights in the network where a person asked for them; in words, for the card."""
    settings = run.settings
    where = settings.start
    if not where:
        if settings.freeze and not settings.init:
            print(
                "note: the layers that are kept as they are hold random numbers; --start imagenet, or --start "
                "with a file, gives them ImageNet's",
                file=sys.stderr,
            )
        return None
    asked = f"--start {shown('start', where)}"
    try:
        words = transfer.load_imagenet(run.state.network, where)
    except transfer.StartError as error:
        if not settings.start_optional:
            raise TrainError(
                f"{asked}: {error}; give a file of torchvision's weights, or go on from random ones "
                "with --start-optional"
            ) from error
        words = f"random weights, for {asked} could not be had ({error})"
    print(f"began with {words}", flush=True)
    return words


def train(given: Given) -> int:
    """A whole run by what a command line says; the process's exit status."""
    run, out = open_run(given)
    first = world()[0] == 0
    counts = [len(cases_of(run.cases, name)) for name in ("train", "val", "test")]
    if first:
        print("{}: {} scans to learn from, {} to validate, {} to test".format(out, *counts), flush=True)
        if run.state.epoch:
            print(f"going on after {run.state.epoch} epochs", flush=True)
    with Halt() as halt:
        try:
            if "finish" not in given:
                run.fit(halt)
            if dist.is_initialized():
                dist.destroy_process_group()  # what is left to do the first process does alone
            if first:
                print(f"wrote {finish(run, halt)}")
        except (Interrupted, RuntimeError):
            if not halt.signal:  # what a signal to all of us did to the processes that read scans is no fault
                raise
            if first:
                print(
                    f"stopped; {run.state.epoch} whole epochs are kept. Go on with: python train.py --resume "
                    f"{out}",
                    file=sys.stderr,
                )
            return 128 + halt.signal
    return 0


def sentence(error: Exception) -> str | None:
    """A sentence for what a person can mend; None for what is a fault of ours."""
    text = str(error)
    if "Original Traceback" in text and ("DataError" in text or "ScanError" in text):  # from a reading process
        return text.strip().splitlines()[-1].partition(": ")[2]
    if isinstance(error, (TrainError, DataError, ScanError, model.WeightsError)):
        return text
    for cause in (error, error.__context__):  # torch, halfway through a checkpoint, raises an error of its own
        if isinstance(cause, OSError) and cause.errno in DISK_FULL:
            return (
                f"the disk is full ({cause.strerror}); free some and go on with --resume. What was whole still is."
            )
    if (
        isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError))
        or "t allocate memory" in text
        or "is killed by signal: Killed" in text
    ):
        return (
            "out of memory; begin again with half the --batch and twice the --accumulate, with --precision "
            "bf16, or with fewer --workers"
        )
    return None
