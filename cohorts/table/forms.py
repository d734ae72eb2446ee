"""How the rows of a table are laid down, one a line, and read back: CSV, JSON lines and Parquet."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohorts.inputs import InputError
from cohorts.table.rows import REFUSED, Columns, Row
from scans.files import write_whole
from studies import from_json, to_json

AT_ONCE = 5000  # rows of a group in a Parquet file


@dataclass(frozen=True)
class Made:
    """By what, and how, rows were made; rows made alike belong in one table."""

    weights: str  # hashes
    segmenter: str  # empty where nothing measures
    level: float
    judged_anyway: bool

    def __str__(self) -> str:
        measured = f" and segmenter {self.segmenter[:12]}" if self.segmenter else ""
        anyway = ", whatever the gate says" if self.judged_anyway else ""
        return f"by weights {self.weights[:12]}{measured} at level {self.level:g}{anyway}"


@dataclass(frozen=True)
class Entry:
    """What of a row decides whether it stands."""

    file: str
    sha256: str  # of the file's content; empty where it could not be read
    refused: bool
    made: Made


def of_row(row: Mapping[str, Any]) -> Entry:
    """The entry of a row in columns; of one read back from a CSV too."""
    made = Made(row["weights"], row["segmenter"], float(row["level"]), row["judged_anyway"] == "yes")
    return Entry(row["file"], row["sha256"], row["verdict"] == REFUSED, made)


def of_record(record: Mapping[str, Any]) -> Entry:
    """The entry of a whole record."""
    segmenter = (record["segmenter"] or {}).get("sha256", "")
    made = Made(record["weights"]["sha256"], segmenter, float(record["level"]), record["gate"]["judged_anyway"])
    return Entry(record["file"], record["sha256"], "error" in record, made)


@dataclass(frozen=True)
class Form:
    """How rows are laid down: the line before them, a record as a line, and a line's entry."""

    head: bytes
    encode: Callable[[Mapping[str, Any]], bytes]
    decode: Callable[[bytes], Entry]


def csv_line(texts: Iterable[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(texts)
    return out.getvalue().encode()


def csv_form(columns: Columns) -> Form:
    def decode(line: bytes) -> Entry:
        (texts,) = csv.reader([line.decode()])
        return of_row(dict(zip(columns.names, texts, strict=True)))

    return Form(csv_line(columns.names), lambda record: csv_line(columns.texts(columns.row(record))), decode)


def json_form(columns: Columns) -> Form:
    """Whole records, as `diagnose.py --json` prints them."""
    return Form(
        b"",
        lambda record: to_json(record).encode() + b"\n",
        lambda line: of_record(from_json(line)),
    )


def parquet_form(columns: Columns) -> Form:
    """The rows of a Parquet file while they wait for it."""
    return Form(
        b"",
        lambda record: to_json(columns.row(record)).encode() + b"\n",
        lambda line: of_row(from_json(line)),
    )


# how the name of a table ends → how its rows are laid down
FORMS: dict[str, Callable[[Columns], Form]] = {
    ".csv": csv_form,
    ".jsonl": json_form,
    ".parquet": parquet_form,
}


def check_name(path: Path) -> None:
    if path.suffix not in FORMS:
        raise InputError(f"{path}: results are written as {', '.join(FORMS)}; name such a file")
    if path.is_dir():
        raise InputError(f"{path}: a folder of that name is there; name a file")
    if path.suffix == ".parquet":
        parquet()


def stored(path: Path, head: bytes = b"") -> Iterator[bytes]:
    """The rows of a table as lines; of a Parquet file as JSON."""
    if path.suffix == ".parquet":
        for batch in parquet().ParquetFile(path).iter_batches(AT_ONCE):
            for row in batch.to_pylist():
                yield to_json(row).encode() + b"\n"
        return
    with path.open("rb") as file:
        file.seek(len(head))
        yield from file


# --- Parquet ---------------------------------------------------------------------------------------------------


def parquet():
    """The library for Parquet, which most never need."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            "Parquet needs pyarrow: `pip install -r requirements-ray.txt`, or name a .csv or .jsonl"
        ) from error
    return pyarrow.parquet


def write_parquet(path: Path, rows: Iterable[Row], columns: Columns) -> None:
    """The rows as a Parquet file that is there whole or not at all, a group of them in memory at a time."""
    import pyarrow

    numbers = set(columns.numbers)
    types = [(name, pyarrow.float64() if name in numbers else pyarrow.string()) for name in columns.names]
    schema = pyarrow.schema(types)

    def fill(out: io.BufferedWriter) -> None:
        with parquet().ParquetWriter(out, schema) as writer:
            group: list[Row] = []
            for row in rows:
                group.append(row)
                if len(group) == AT_ONCE:
                    writer.write_table(pyarrow.Table.from_pylist(group, schema))
                    group = []
            writer.write_table(pyarrow.Table.from_pylist(group, schema))

    write_whole(path, fill)
