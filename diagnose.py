"""The command line for one scan or a handful: a line, a JSON object, a CSV row or a report of each."""

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import model
from cohorts.table.rows import columns_of, write_csv
from diagnosis import options as judging
from diagnosis.anatomy.norms import NOBODY, NormsError, person
from diagnosis.diagnoser import Diagnoser, Diagnosis, error_record, find_weights
from networks import dropout
from networks.memory import keep_memory
from reports.wording import Texts, languages
from scans import processes
from scans.folders.candidates import each_study
from scans.progress import progress
from scans.read import APART, READERS, name_of, safe_name
from scans.scan import ScanError
from studies import NOTICE, to_json

ROOT = Path(__file__).resolve().parent


def collect(paths: list[Path], volumes: bool = True) -> list[Path]:
    """The files and folders to judge: files as given, folders walked for what is a scan, in the order of paths.

    DICOM files below a folder are volumes by their series, unless a study looks at pictures.
    """
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        suffixes = APART if volumes else tuple(READERS)
        found = [file for file in path.rglob("*") if file.is_file() and file.name.lower().endswith(suffixes)]
        if volumes:
            try:
                found += [unit.path for unit in processes.survey(path)]
            except ScanError as error:
                if error.code != "no-image":  # of anything else the folder's own refusal will tell
                    found.append(path)
        files += sorted(found)
    return files


def indented(file: str, width: int, text: str) -> str:
    """A file's lines: its name before the first, what follows below the first."""
    first, *rest = text.splitlines()
    return "\n".join([f"{file:<{width}}  {first}", *(f"{'':<{width}}  {line}" for line in rest)])


def file_report(diagnoser: Diagnoser, diagnosis: Diagnosis, options: argparse.Namespace) -> list[str]:
    """Write the report, with a map where there is a class to explain; the names of its files."""
    from reports.files import write  # here: it brings what draws pages, and most command lines never ask

    heat_map = diagnoser.explain(diagnosis) if diagnosis.label else None
    return [path.name for path in write(diagnosis, heat_map, options.report, options.language)]


def file_labels(diagnosis: Diagnosis, folder: Path) -> str | None:
    """Write the label map of a scan that was measured; its name."""
    from reports.labels import write_labels

    return write_labels(diagnosis, folder).name if diagnosis.segmentation else None


def dicom_results(diagnoser: Diagnoser, diagnosis: Diagnosis, options: argparse.Namespace) -> list[str]:
    """Write the results as DICOM; the names of the files. ScanError where the scan came without a DICOM study."""
    from archive.results import results, write  # here: highdicom takes a second to open

    heat_map = diagnoser.explain(diagnosis) if diagnosis.label else None
    made = results(diagnosis, heat_map, options.language)
    return [path.name for path in write(made, options.dicom, diagnosis.file)]


def folder_fault(options: argparse.Namespace) -> str | None:
    """What stands in the way of a folder to write to."""
    for option in ("report", "labels", "dicom"):
        folder = getattr(options, option)
        if folder and folder.exists() and not folder.is_dir():
            return f"--{option} {folder}: a file of that name is there; name a folder"
    return None


def person_fault(options: argparse.Namespace, files: int) -> str | None:
    """Why one age and sex cannot be true of all that is to be judged."""
    if options.person == NOBODY or files == 1:
        return None
    return f"--age and --sex are one person's, and these are {files} scans; give one scan at a time"


def answers(
    diagnoser: Diagnoser, file: Path, options: argparse.Namespace
) -> Iterator[tuple[str, Diagnosis | ScanError]]:
    """What a file is called, and its diagnosis or refusal: one a study where several people's lie in it."""

    def ask(name: str, series: str | None) -> Diagnosis | ScanError:
        try:
            return diagnoser(
                file,
                name,
                series=series,
                judge_anyway=options.judge_anyway,
                level=options.level,
                passes=dropout.PASSES if options.uncertainty else 0,
                person=options.person,
            )
        except ScanError as error:
            return error

    name = safe_name(file.name or file.resolve().name)
    first = ask(name, options.series)
    listed = first.series if isinstance(first, ScanError) else first.scan.series
    keys = each_study(listed) if options.series is None and options.person == NOBODY else []
    if not keys:
        yield name, first
    for key in keys:
        named = name_of(name, key)
        if isinstance(first, Diagnosis) and any(one.chosen for one in listed if one.key == key):
            yield named, replace(first, file=named)
        else:
            yield named, ask(named, key)


def told(
    diagnoser: Diagnoser, answer: Diagnosis | ScanError, options: argparse.Namespace, t: Texts
) -> tuple[dict[str, Any], str]:
    """An answer's record and its line, with the files that were asked for written; ScanError where it is one."""
    if isinstance(answer, ScanError):
        raise answer
    record, text = answer.record(), t.line(answer)
    if options.report:
        record["report"] = file_report(diagnoser, answer, options)
        text += "".join(f"\n  {t('command.report', name=name)}" for name in record["report"])
    if options.labels:
        record["labels"] = file_labels(answer, options.labels)
        text += f"\n  {t('command.labels', name=record['labels'])}" if record["labels"] else ""
    if options.dicom:
        record["dicom"] = dicom_results(diagnoser, answer, options)
        text += "".join(f"\n  {t('command.dicom', name=name)}" for name in record["dicom"])
    return record, text


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Judge scans with a trained network.", epilog=NOTICE)
    parser.add_argument(
        "scans", nargs="+", type=Path, metavar="SCAN", help="a file, a folder to walk, or one of DICOM files"
    )
    parser.add_argument(
        "--series", metavar="NUMBER", help="of several DICOM series this one (default: the best T1)"
    )
    judging.add_weights(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON array, an object a file")
    form.add_argument("--csv", type=Path, metavar="FILE", help="write a table with a row a file")
    judging.add_judging(parser)
    parser.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="write a report of each scan with its heat map there: HTML, PDF, JSON and pictures",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="DIR",
        help="write what was outlined in each scan there, as a NIfTI label map on the scan's own grid",
    )
    parser.add_argument(
        "--dicom",
        type=Path,
        metavar="DIR",
        help="write the results of each DICOM scan there as DICOM: structured report, PDF, pictures, heat map",
    )
    judging.add_segmenter(parser)
    parser.add_argument("--age", metavar="YEARS", help="of the person, for centiles among controls (--norms)")
    parser.add_argument("--sex", metavar="F|M", help="of the person, for centiles among their own")
    judging.add_norms(parser)
    parser.add_argument(
        "--language", choices=list(languages()), default="en", help="of what is printed and reported (%(default)s)"
    )
    judging.add_networks(parser)
    judging.add_device(parser)
    options = parser.parse_args(argv)
    judging.check_judging(parser, options)
    try:
        options.person = person(options.age, options.sex)
    except NormsError as error:
        parser.error(str(error))
    return options


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    processes.warm()  # it starts while the weights are loaded
    keep_memory()
    try:
        for name in options.allow_network:
            model.allow_network(name)
        weights = options.weights or find_weights(ROOT / "weights", options.study)
        diagnoser = Diagnoser(weights, options.device, options.precision, options.segmenter, options.norms)
        if options.uncertainty and diagnoser.why_no_uncertainty:
            raise model.WeightsError(diagnoser.why_no_uncertainty)
        if options.labels and diagnoser.segmenter is None:
            raise model.WeightsError(f"--labels {options.labels}: nothing outlines scans here; name a --segmenter")
    except (model.WeightsError, NormsError) as error:
        print(error, file=sys.stderr)
        return 2
    files = collect(options.scans, diagnoser.study.contract.kind == "volume")
    if not files:
        print(
            f"nothing to judge in {', '.join(map(str, options.scans))}; readable are {', '.join(READERS)}",
            file=sys.stderr,
        )
        return 2
    fault = folder_fault(options) or person_fault(options, len(files))
    if fault:
        print(fault, file=sys.stderr)
        return 2
    records, lines, t = [], [], Texts(options.language)
    for file in progress(files, "judging", unit="scan", quiet=len(files) < 2, leave=False):
        for name, answer in answers(diagnoser, file, options):
            try:
                record, text = told(diagnoser, answer, options, t)
            except ScanError as error:
                record, text = error_record(name, error), t("command.refused", message=str(error))
            records.append(record)
            lines.append((record["file"], text))
    width = max(len(name) for name, _ in lines)
    if options.json:
        sys.stdout.write(to_json(records, indent=2))
        print()
    elif options.csv:
        write_csv(options.csv, records, columns_of(records, diagnoser.study.codes))
    else:
        print("\n".join(indented(name, width, text) for name, text in lines))
        print(f"\n{t.weights_title(diagnoser.weights)}\n{t('notice')}")
    return 0 if all(record.get("label") for record in records) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # the reader, such as `head`, had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
