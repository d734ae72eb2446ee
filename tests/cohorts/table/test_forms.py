"""How rows are laid down and read back."""

import json

import pyarrow.parquet
import pytest

from cohorts.inputs import InputError
from cohorts.table.forms import FORMS, Entry, Made, check_name, stored, write_parquet
from cohorts.table.rows import Columns
from diagnosis.diagnoser import error_record
from scans.scan import ScanError
from studies import STUDIES

COLUMNS = Columns(STUDIES["alzheimers"].codes, provenance=True)
MADE = Made("ab" * 32, "", 0.9, False)
MEASURED = Made("ab" * 32, "ef", 0.9, False)
COMMON = {
    "weights": {"name": "w", "sha256": "ab" * 32},
    "segmenter": None,
    "level": 0.9,
    "gate": {"verdict": "fit", "reasons": [], "judged_anyway": False},
}


def judged(file='a "quoted", name.nii', **more):
    chances = dict.fromkeys(COLUMNS.codes, 0.2)
    return COMMON | {"file": file, "sha256": "cd", "label": "AD", "probabilities": chances} | more


def refused(file="b.nii"):
    return COMMON | {"sha256": ""} | error_record(file, ScanError("empty", f"{file}:\nempty"))


@pytest.mark.parametrize("suffix", FORMS)
def test_a_line_gives_back_what_decides_whether_its_row_stands(suffix):
    form = FORMS[suffix](COLUMNS)
    for record, expected in (
        (judged(), Entry('a "quoted", name.nii', "cd", False, MADE)),
        (refused(), Entry("b.nii", "", True, MADE)),
        (
            judged("c.nii", segmenter={"name": "s", "sha256": "ef"}),
            Entry("c.nii", "cd", False, Made("ab" * 32, "ef", 0.9, False)),
        ),
    ):
        line = form.encode(record)
        assert line.endswith(b"\n") and line.count(b"\n") == 1 and form.decode(line) == expected


def test_parquet_holds_numbers_as_numbers_and_text_as_text(tmp_path):
    path = tmp_path / "rows.parquet"
    write_parquet(path, map(COLUMNS.row, [judged(), refused()]), COLUMNS)
    table = pyarrow.parquet.read_table(path)
    assert table.column_names == COLUMNS.names and str(table.schema.field("AD").type) == "double"
    assert table["AD"].to_pylist() == [0.2, None] and table["verdict"].to_pylist() == ["fit", "refused"]
    assert [json.loads(line)["file"] for line in stored(path)] == ['a "quoted", name.nii', "b.nii"]


def test_a_table_of_another_kind_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"out.xlsx: results are written as .csv, .jsonl, .parquet"):
        check_name(tmp_path / "out.xlsx")
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(InputError, match="a folder of that name is there"):
        check_name(tmp_path / "out.csv")


def test_how_rows_were_made_is_said_in_words():
    assert str(MADE) == "by weights abababababab at level 0.9"
    assert str(Made("a" * 64, "b" * 64, 0.5, True)).endswith(
        f"segmenter {'b' * 12} at level 0.5, whatever the gate says"
    )
