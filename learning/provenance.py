"""Where a run's weights come from, for their header and card: data, subjects, settings, versions, predecessors."""

import statistics
import subprocess
from collections import Counter
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import model
from data.cases import Case
from data.splits import data_folder, learned_from, subject_hash
from data.tables import GROUPS
from learning.environment import environment, versions
from learning.loop import Trainer, cases_of
from learning.settings import MOVABLE, TrainError, shown
from networks.header import Header

SPLITS = ("train", "val", "test")
ABOUT_LETTERS = 2000  # of the data's about.txt that a weights file keeps
NOT_OF_THE_METHOD = MOVABLE | {"out", "split", "command", "record"}  # settings that change no weight


def header_of(run: Trainer) -> Header:
    """The header as far as it is known before any judging."""
    study, settings, state = run.study, run.settings, run.state
    counts = data_counts(run)
    data = data_in_words(counts, run.facts["duplicates"])
    before = model.read_header(settings.init) if settings.init else None
    if before:
        check_unseen(before, cases_of(run.cases, "test"), Path(settings.init or "").name)
    salt = run.facts["salt"]
    training = {
        "data": data,
        "counts": counts,
        "about": about(Path(settings.data)),
        "begun_with": begun_with(before) if before else None,
        "subjects": {split: subjects_by_class(run, split) for split in SPLITS},
        "subject_salt": salt,
        "subject_hashes": {split: hashes_of(run, split, salt) for split in SPLITS},
        "earlier_hashes": {old: sorted(hashes) for old, hashes in before.learned_from.items()} if before else {},
        "seed": settings.seed,
        "command": settings.command,
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        "settings": {
            name: shown(name, value) for name, value in asdict(settings).items() if name not in NOT_OF_THE_METHOD
        },
        "versions": versions(),
        "environment": environment(run.device),
        "seconds": round(sum(row.get("seconds", 0.0) for row in state.history), 1),
        "commit": commit(),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "segmenter": run.segmenter,
        "leaks_allowed": run.facts["leaks"],
        "started": run.facts["started"],
        "flow": run.facts["flow"],
        "people": described(run.cases),
    }
    name, began = shown("out", settings.out), run.facts["began"]
    title = settings.title or f"{study.title}; learned from {data}; run {name}{f' of {began}' if began else ''}"
    return Header(study, settings.network, settings.arguments, title, training)


def begun_with(before: Header) -> dict[str, Any]:
    """The commands that led to the weights begun with, the first first, and the epochs and commit of the last."""
    training = before.training
    earlier = (training.get("begun_with") or {}).get("command")
    commands = [command for command in (earlier, training.get("command")) if command]
    return {
        "command": "\n".join(commands) or None,
        "epochs": training.get("epochs"),
        "commit": training.get("commit"),
    }


def data_counts(run: Trainer) -> dict[str, Any]:
    return {
        "name": shown("data", run.settings.data),
        "scans": len(run.cases),
        "people": len({case.subject for case in run.cases}),
    }


def data_in_words(counts: dict[str, Any], duplicates: int) -> str:
    left_out = f" ({duplicates} more left out, identical to others)" if duplicates else ""
    return "“{name}”: {scans} scans of {people} subjects".format(**counts) + left_out


def described(cases: list[Case]) -> dict[str, dict[str, dict[str, Any]]]:
    """What tables tell of the people of each part: numbers in brief, words counted."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name in GROUPS:
        for split in SPLITS:
            people = {case.subject: dict(case.groups).get(name) for case in cases_of(cases, split)}
            told = [value for value in people.values() if value is not None]
            if told:
                found.setdefault(name, {})[split] = in_brief(told) | {"unknown": len(people) - len(told)}
    return found


def in_brief(values: list[str]) -> dict[str, Any]:
    """Mean and range where all are numbers and many differ, else how often each occurs, the commonest first."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        numbers = []
    if numbers and len(set(numbers)) > 5:
        spread = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
        return {
            "mean": statistics.fmean(numbers),
            "deviation": spread,
            "low": min(numbers),
            "high": max(numbers),
        }
    return {"counts": dict(Counter(values).most_common(20))}


def about(data: Path) -> str | None:
    """What the data's own about.txt says of them."""
    file = data_folder(data) / "about.txt"
    return file.read_text(encoding="utf-8").strip()[:ABOUT_LETTERS] if file.is_file() else None


def subjects_by_class(run: Trainer, split: str) -> dict[str, int]:
    cases = cases_of(run.cases, split)
    if run.study.target:
        return {run.study.codes[0]: len({case.subject for case in cases})}
    return {code: len({case.subject for case in cases if case.label == code}) for code in run.study.codes}


def hashes_of(run: Trainer, split: str, salt: str) -> list[str]:
    return sorted({subject_hash(case.subject, salt) for case in cases_of(run.cases, split)})


def check_unseen(before: Header, tested: list[Case], name: str) -> None:
    """Refuse weights to begin with that learned from people who are to be tested on."""
    if learned_from(before, {case.subject for case in tested}):
        raise TrainError(
            f"--init {name}: it learned from subjects to be tested on here; use the same split for both"
        )


def commit() -> str | None:
    """The commit of the code that trains, where it is a git checkout."""
    here = Path(__file__).resolve().parent.parent
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return asked.stdout.strip() or None
