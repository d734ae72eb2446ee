"""Tables of cases as people keep them: commas, semicolons or tabs, columns by several names, ADNI's own list.

It gives rows with the project's own column names; which rows become cases is `cases`' work.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
ABSENT = ("", "n/a", "nan")  # how tables say that there is no value
# our name of a column → what it may be called, in any case, with blanks, dashes or underscores
COLUMNS = {
    "file": ("file", "path", "filename", "file_name", "filepath", "file_path"),
    "label": ("label", "class", "diagnosis", "dx", "group"),
    "subject": ("subject", "subject_id", "patient", "patient_id", "participant", "participant_id", "ptid"),
    "split": ("split", "partition"),
    "image": ("image_data_id", "image_id"),  # of ADNI's download table
    "session": ("session_id", "session"),
    "age": ("age", "age_years", "age_at_scan"),
    "sex": ("sex", "gender"),
    "site": ("site", "centre", "center", "hospital"),
    "scanner": ("scanner", "manufacturer", "scanner_model"),
}
GROUPS = ("age", "sex", "site", "scanner")  # what is kept of a case beside its label, to score and to describe by
IMAGE = re.compile(r"(?:^|[_/])(I\d+)(?=[_/.])")  # ADNI's name of an image, in the path of its file


class DataError(ValueError):
    """What is wrong with the data, naming it, and what to do about it."""


@dataclass(frozen=True)
class Table:
    """A table's rows by our own column names, where it has them, and by its own in small letters."""

    path: Path
    columns: list[str]  # as they stand in the file
    rows: list[dict[str, str]]

    def has(self, name: str) -> bool:
        return name in self.rows[0]

    def label_column(self, asked: str | None) -> str:
        """The column with the labels: the one asked for, else one that is called as such columns are."""
        column = plain(asked) if asked else "label"
        if not self.has(column):
            raise DataError(
                f"{self.path}: no column '{asked or 'label'}'; it has {', '.join(self.columns)}: "
                "name the one with the classes by --label-column"
            )
        return column

    def groups(self, row: dict[str, str]) -> tuple[tuple[str, str], ...]:
        """What a row says of the person and the scanner."""
        return tuple((name, row[name]) for name in GROUPS if row.get(name, "").lower() not in ABSENT)


def plain(name: str) -> str:
    """A column's name as names are compared."""
    return re.sub(r"[\s_-]+", "_", name.strip().lower())


def read_table(path: Path) -> Table:
    """A CSV or TSV without stray blanks; parted by the sign that its first line has most of."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        first = text.partition("\n")[0]
        lines = csv.reader(io.StringIO(text), delimiter=max("\t;,", key=first.count), strict=True)
        read = [[cell.strip() for cell in line] for line in lines if any(cell.strip() for cell in line)]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable table ({error}); save it as UTF-8 CSV") from error
    if len(read) < 2:
        raise DataError(f"{path}: no rows below the header")
    columns = read[0]
    own = [plain(name) for name in columns]
    names = own + [name for name, called in COLUMNS.items() if name not in own and set(called) & set(own)]
    places = [own.index(name if name in own else first_of(name, own)) for name in names]
    rows = [[line[at] if at < len(line) else "" for at in places] for line in read[1:]]
    return Table(path, columns, [dict(zip(names, row, strict=True)) for row in rows])


def first_of(name: str, own: list[str]) -> str:
    """The first of a table's columns, in our order, that may be called so."""
    return next(called for called in COLUMNS[name] if called in own)


def part_of(table: Table, line: int, row: dict[str, str]) -> str | None:
    """The part of a split that a row names, if any."""
    said = row.get("split", "").lower()
    if said in ABSENT:
        return None
    if said not in SPLITS:
        raise DataError(f"{table.path}, line {line}: split '{row['split']}'; known: train, val, test, or empty")
    return SPLITS[said]


def file_of(root: Path, said: str) -> Path:
    """The file that a table names, from its root, also where its folders are parted by backslashes."""
    file = root / said
    return file if "\\" not in said or file.is_file() else root / said.replace("\\", "/")


def check_files(table: Path, root: Path, files: Sequence[Path]) -> None:
    """Refuse a table that names files which are not there, or one of them more than once."""
    missing = [str(file) for file in files if not file.exists()]
    if missing:
        raise DataError(
            f"{table}: {len(missing)} of its {len(files)} files do not exist: {first_few(missing)}; "
            f"paths count from {root}"
        )
    twice = [str(file) for file, n in Counter(files).items() if n > 1]
    if twice:
        raise DataError(f"{table}: listed more than once: {first_few(twice)}; keep one row for each")


def is_download_table(path: Path) -> bool:
    """Whether this is the list of images that ADNI's archive gives with a download."""
    try:
        with path.open(encoding="utf-8-sig") as lines:
            return "image_data_id" in [plain(name.strip('"')) for name in lines.readline().strip().split(",")]
    except UnicodeDecodeError:
        return False


def images_below(root: Path, files: Iterable[Path]) -> dict[str, list[Path]]:
    """The files by the name of the image that ADNI gave them."""
    found: dict[str, list[Path]] = {}
    for file in files:
        names = IMAGE.findall(file.relative_to(root).as_posix())
        if names:
            found.setdefault(names[-1], []).append(file)
    return found


def folder_of(files: Sequence[Path]) -> Path:
    """The folder that the slices of one image lie in, and nothing else."""
    folder = files[0].parent
    others = {file.parent for file in files} - {folder}
    strays = [file for file in folder.iterdir() if file.is_file() and file not in files]
    if others or strays or not all(file.name.lower().endswith(".dcm") for file in files):
        raise DataError(
            f"{folder}: {len(files)} files of one image, and other files among them; make one file of them, with "
            "`dcm2niix` or by zipping the folder"
        )
    return folder


def first_few(names: Iterable[str], most: int = 5, between: str = ", ") -> str:
    """The first names and how many more there are."""
    names = list(names)
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return between.join(names[:most] + more)
