"""Shards: the parts of a cohort that were judged apart, put together into one table."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from cohorts.inputs import InputError
from cohorts.table.forms import Entry, Made, check_name, of_record, of_row, parquet, stored
from scans.files import write_whole
from studies import from_json

SHARD = re.compile(r"\.shard-(\d+)-of-(\d+)$")


def shard_name(path: Path, shard: tuple[int, int]) -> Path:
    """`answers.csv` → `answers.shard-2-of-8.csv`."""
    return path if shard == (1, 1) else path.with_name(f"{path.stem}.shard-{shard[0]}-of-{shard[1]}{path.suffix}")


def check_parts(parts: Sequence[Path]) -> None:
    """That all shards of one whole are there, each of them finished."""
    for part in parts:
        check_name(part)
        if not part.is_file():
            half = part.with_name(part.name + ".part").exists()
            raise InputError(f"{part}: {'not finished, go on with it' if half else 'no such file'}")
    if len({part.suffix for part in parts}) > 1:
        raise InputError(f"{', '.join(part.name for part in parts[:3])}…: different kinds of table; give one")
    found = [match for part in parts if (match := SHARD.search(part.stem))]
    if found:
        of = {int(match.group(2)) for match in found}
        numbers = Counter(int(match.group(1)) for match in found)
        missing = sorted(set(range(1, max(of) + 1)) - set(numbers))
        if len(of) > 1 or len(found) < len(parts):
            raise InputError("shards of different wholes; merge those of one")
        if missing:
            raise InputError(f"no shard {', '.join(map(str, missing))} of {max(of)}; judge it first, or name it")


def merge(parts: Sequence[Path], out: Path) -> int:
    """Put the parts together, whole or not at all; how many rows there are."""
    check_parts(parts)
    check_name(out)
    if out.suffix != parts[0].suffix:
        raise InputError(f"{out}: the shards are {parts[0].suffix}; name such a file")
    heads = {part: head_of(part) for part in parts}
    differing = [part for part in parts if heads[part] != heads[parts[0]]]
    if differing:
        raise InputError(f"{differing[0]}: has other columns than {parts[0]}; judge it with the same options")
    files: set[str] = set()
    made: Made | None = None
    for part in parts:
        for entry in entries(part, heads[part]):
            made = made or entry.made
            if entry.made != made:
                raise InputError(f"{part}: judged {entry.made}, the others {made}; judge it with the same options")
            if entry.file in files:
                raise InputError(f"{part}: has a row of {entry.file}, which another part has too; leave one out")
            files.add(entry.file)
    if out.suffix == ".parquet":
        write_whole(out, lambda file: together(parts, file))
    else:
        write_whole(out, lambda file: file.writelines(lines(parts, heads[parts[0]])))
    return len(files)


def head_of(part: Path) -> bytes:
    """What tells the columns of a table."""
    if part.suffix == ".parquet":
        return str(parquet().read_schema(part)).encode()
    with part.open("rb") as file:
        return file.readline() if part.suffix == ".csv" else b""


def entries(part: Path, head: bytes) -> Iterator[Entry]:
    if part.suffix == ".csv":
        (names,) = csv.reader([head.decode()])
        for line in stored(part, head):
            (texts,) = csv.reader([line.decode()])
            yield of_row(dict(zip(names, texts, strict=True)))
    else:
        of = of_row if part.suffix == ".parquet" else of_record
        yield from (of(from_json(line)) for line in stored(part))


def lines(parts: Sequence[Path], head: bytes) -> Iterator[bytes]:
    yield head
    for part in parts:
        yield from stored(part, head)


def together(parts: Sequence[Path], out: io.BufferedWriter) -> None:
    with parquet().ParquetWriter(out, parquet().read_schema(parts[0])) as writer:
        for part in parts:
            for batch in parquet().ParquetFile(part).iter_batches():
                writer.write_batch(batch)
