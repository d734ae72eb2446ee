"""A training run from labelled scans to a weights file: opened or resumed, trained, judged, written."""

import errno
import json
import subprocess
import sys
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

import model
import studies
from data.cache import Cache
from data.cases import Case, DataError, find, notes
from data.files import write_bytes
from data.leaks import Leaks, contradictions, deduplicate, fingerprints, leaks
from data.splits import assign, read_split, subject_hash, write_split
from learning import transfer
from learning.calibration import example, fit_calibration, fit_likeness
from learning.card import card
from learning.loop import Trainer, TrainError, part
from learning.processes import Halt, Interrupted, join, shared, world
from learning.results import write as write_results
from learning.scoring import predict, readable, scores
from learning.settings import MOVABLE, settle, shaped, shown
from scans.scan import ScanError
from studies import Study

ABOUT = 2000  # letters of the data's about.txt that a weights file keeps
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def gather(study: Study, settings: dict[str, Any], out: Path, cache: Cache) -> tuple[list[Case], dict[str, int]]:
    """The cases, read, split and free of leaks; how many leaks were allowed and cases left out as doubles.

    Writes `split.csv`.
    """
    data = Path(settings["data"])
    if settings["split"]:
        cases = read_split(settings["split"], root(data))
    else:
        cases = find(data, study, settings["subject_regex"], settings["label_column"])
    cases = readable(cases, cache, settings["workers"])
    count = len(cases)
    prints = fingerprints(cases)
    if settings["deduplicate"]:
        cases = singled(cases, leaks(cases, prints))
    cases = assign(cases, settings["seed"], settings["val"], settings["test"])
    for name in ("train", "val"):
        if not part(cases, name):
            raise TrainError(
                f"{data}: no case for {name}; give more subjects, or another --val than {settings['val']}"
            )
    for note in notes(cases, study):
        print(f"note: {note}", file=sys.stderr)
    found = leaks(cases, prints)
    if found.pairs and not settings["allow_leak"]:
        raise TrainError(
            f"{found}\nTake one of each pair out or split again; --allow-leak trains all the same "
            "and says so on the card of the weights file."
        )
    if found.pairs or found.duplicates:
        print(f"warning: {found}", file=sys.stderr)
    write_split(out / "split.csv", cases, root(data))
    return cases, {"leaks": len(found.pairs), "doubles": count - len(cases)}


def singled(cases: list[Case], found: Leaks) -> list[Case]:
    """One case of each group of identical pictures; groups that contradict themselves are named and left out."""
    kept, torn = deduplicate(cases, found, refuse=False), contradictions(found)
    print(f"left out {len(cases) - len(kept)} of {len(cases)} scans, identical to others")
    if torn:
        print(
            f"{len(torn)} groups of them left out whole, for identical pictures have different labels:",
            *torn,
            sep="\n  ",
            file=sys.stderr,
        )
    return kept


def root(data: Path) -> Path:
    """The folder from which the paths of a split count."""
    return data if data.is_dir() else data.parent


def finish(run: Trainer, halt: Halt) -> Path:
    """Calibrates on validation subjects, scores on test subjects, writes the weights file and its card."""
    study, settings, state = run.study, run.settings, run.state
    if not state.best:
        raise TrainError("no epoch is done yet, so there is nothing to write; go on with --resume")
    network = run.state.network
    network.load_state_dict(state.best)
    network.to(memory_format=torch.contiguous_format).eval()
    header = heading(run)
    weights = model.Weights("", "", header, study, network, run.device, {})
    seen = {
        name: predict(weights, part(run.cases, name), run.cache, progress=halt.check, sketches=name != "test")
        for name in ("train", "val", "test")
    }
    cohort = f"“{shown('data', settings['data'])}”"
    header["calibration"] = fit_calibration(
        seen["val"].logits, seen["val"].targets(study), cohort, len(set(seen["val"].subjects))
    )
    header["likeness"], extras = fit_likeness(seen["train"], seen["val"], study.contract)
    if settings["example"]:
        header["example"] = example(weights, Path(settings["example"]))
    if seen["test"].files:
        header["scores"] = scores(seen["test"], study, header["calibration"], rounds=settings["rounds"])
        header["scores"]["cohort"] = cohort
    header["card"] = card(header)
    path = run.out / f"{study.key}.{settings['network']}.safetensors"
    model.save(path, network, header, extras)
    write_results(run.out, header, seen["test"], study, root(Path(settings["data"])))
    write_bytes(
        run.out / "losses.json",
        json.dumps(
            {
                "settings": header["training"]["settings"],
                "classes": dict(enumerate(study.codes)),
                "best_epoch": state.best_epoch,
                "epochs": state.history,
            },
            indent=1,
        ).encode(),
    )
    return path


def heading(run: Trainer) -> dict[str, Any]:
    """The header as far as it is known before any judging."""
    study, settings, state = run.study, run.settings, run.state
    subjects: dict[str, dict[str, int]] = {}
    hashes: dict[str, list[str]] = {}
    first = None  # how the weights that it began with were made
    for name in ("train", "val", "test"):
        cases = part(run.cases, name)
        subjects[name] = {c: len({case.subject for case in cases if case.label == c}) for c in study.codes}
        hashes[name] = sorted({subject_hash(case.subject) for case in cases})
    if settings["init"]:  # whom the first tensors were learned from counts as learned from
        first = model.read_header(settings["init"]).get("training", {})
        known = first.get("subject_hashes", {})
        before = {digest for name in ("train", "val") for digest in known.get(name, [])}
        if before & set(hashes["test"]):
            raise TrainError(
                f"--init {Path(settings['init']).name}: it learned from subjects to be tested "
                "on here; use the same split for both"
            )
        hashes["train"] = sorted((before | set(hashes["train"])) - set(hashes["val"]))
    counts = {
        "name": shown("data", settings["data"]),
        "scans": len(run.cases),
        "people": len({case.subject for case in run.cases}),
    }
    data = "“{name}”: {scans} scans of {people} subjects".format(**counts)
    doubles = run.facts.get("doubles")
    data += f" ({doubles} more left out, identical to others)" if doubles else ""
    about = root(Path(settings["data"])) / "about.txt"
    here = Path(__file__).resolve().parent.parent
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return {
        "title": settings["title"] or f"{study.title}; learned from {data}",
        "study": studies.to_record(study),
        "network": {"name": settings["network"], "arguments": settings["arguments"]},
        "contract": asdict(study.contract),
        "contract_hash": study.contract.hash(),
        "training": {
            "data": data, "counts": counts,
            "about": about.read_text(encoding="utf-8").strip()[:ABOUT] if about.is_file() else None,
            "begun_with": {key: first.get(key) for key in ("command", "epochs", "commit")} if first else None,
            "subjects": subjects, "subject_hashes": hashes, "seed": settings["seed"],
            "command": settings["command"], "epochs": state.epoch, "best_epoch": state.best_epoch,
            "settings": {key: shown(key, value) for key, value in settings.items()
                         if key not in MOVABLE | {"out", "split", "command"}},
            "versions": {"python": sys.version.split()[0], "torch": torch.__version__, "numpy": np.__version__},
            "commit": commit.stdout.strip() or None, "date": datetime.now(timezone.utc).date().isoformat(),
            "leaks_allowed": run.facts["leaks"], "started": run.facts["started"],
        },
    }  # fmt: skip


def begin(given: dict[str, Any]) -> tuple[Trainer, Path]:
    """A new run, or one taken up again, ready to train."""
    record = None
    if "resume" in given:
        out = Path(given["resume"])
        if not (out / "last.pt").is_file():
            raise TrainError(f"{out}: no last.pt in it, so nothing to resume; give the folder of a run")
        fixed = sorted(set(given) - MOVABLE - {"resume", "finish"})
        if fixed:
            names = ", ".join("--" + key.replace("_", "-") for key in fixed)
            raise TrainError(f"{names}: fixed when the run began; leave it out, or begin a new run")
        record = torch.load(out / "last.pt", map_location="cpu", weights_only=True)
        settings = record["settings"] | {key: given[key] for key in set(given) & MOVABLE}
    else:
        settings = shared(settle(given))
        out = Path(settings["out"])
        if (out / "last.pt").exists():
            raise TrainError(f"{out}: holds a run already; go on with --resume {out}, or choose another --out")
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    device = join(model.pick_device(settings["device"]))
    study = shaped(studies.STUDIES[settings["study"]], settings)
    settings = shared(settings)
    out = Path(shared(str(out)))
    run = Trainer(study, settings, out, device)
    if record:
        run.cases = read_split(out / "split.csv", root(Path(settings["data"])))
        run.facts = record["facts"] | {"started": record["facts"].get("started")}  # runs of old know nothing of it
        run.state.restore(record["state"])
    else:
        run.facts["started"] = begun(run, settings)
        out.mkdir(parents=True, exist_ok=True)
        found = gather(study, settings, out, run.cache) if world()[0] == 0 else None
        run.cases, facts = shared(found)
        run.facts |= facts
        if world()[0] == 0:
            run.save()
    return run, out


def begun(run: Trainer, settings: dict[str, Any]) -> str | None:
    """ImageNet weights in the network where a person asked for them; in words, for the card."""
    where = settings["start"]
    if not where:
        if settings["freeze"] and not settings["init"]:
            print(
                "note: the layers that are kept as they are hold random numbers; --start imagenet, or --start "
                "with a file, gives them ImageNet's",
                file=sys.stderr,
            )
        return None
    asked = f"--start {shown('start', where)}"
    try:
        words = transfer.start(run.state.network, where)
    except transfer.StartError as error:
        if not settings["start_optional"]:
            raise TrainError(
                f"{asked}: {error}; give a file of torchvision's weights, or go on from random ones "
                "with --start-optional"
            ) from error
        words = f"random weights, for {asked} could not be had ({error})"
    print(f"began with {words}", flush=True)
    return words


def train(given: dict[str, Any]) -> int:
    run, out = begin(given)
    first = world()[0] == 0
    counts = [len(part(run.cases, name)) for name in ("train", "val", "test")]
    if first:
        print("{}: {} scans to learn from, {} to validate, {} to test".format(out, *counts), flush=True)
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


def reason(error: Exception) -> str | None:
    """A sentence for what a person can mend; None for what is a fault of ours."""
    text = str(error)
    if "Original Traceback" in text and ("DataError" in text or "ScanError" in text):  # from a reading process
        return text.strip().splitlines()[-1].partition(": ")[2]
    if isinstance(error, (TrainError, DataError, ScanError, model.WeightsError)):
        return text
    if isinstance(error, OSError) and error.errno in FULL:
        return f"the disk is full ({error.strerror}); free some and go on with --resume. What was whole still is."
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
