"""The BIDS App's derivatives, and what the validator of BIDS says of them."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cohorts.bids import RECORD, Derivatives, derivative, dictionary, group, label_table, records
from cohorts.inputs import InputError
from cohorts.table.forms import Made
from cohorts.table.rows import Columns
from tests.cohorts.table.test_forms import COLUMNS, MADE, judged, refused

FILES = [f"sub-0{person}/ses-a/anat/sub-0{person}_ses-a_run-2_T1w.nii.gz" for person in (1, 2)]
PEOPLE = [{"sub": "01", "ses": "a", "run": "2"}, {"sub": "02", "ses": "a", "run": "2"}]


def filled(folder, **how):
    results = Derivatives(folder)
    results.begin(MADE, **how)
    results.append(judged(FILES[0], entities=PEOPLE[0], measures={"ventricles": {"value": 31.5}}))
    results.append(refused(FILES[1]) | {"entities": PEOPLE[1]})
    results.finish()
    results.close()
    return results


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [
        (RECORD, "sub-01/ses-a/anat/sub-01_ses-a_run-2_desc-scanwise_T1w.json"),
        ("_labels.nii.gz", "sub-01/ses-a/anat/sub-01_ses-a_run-2_desc-scanwise_dseg.nii.gz"),
        ("_map.nii.gz", "sub-01/ses-a/anat/sub-01_ses-a_run-2_desc-scanwise_heatmap.nii.gz"),
        (".pdf", "sub-01/ses-a/anat/sub-01_ses-a_run-2_desc-scanwise_report.pdf"),
    ],
)
def test_what_is_written_is_named_as_bids_names_derivatives(suffix, expected):
    assert derivative(Path(), FILES[0], suffix).as_posix() == expected


def test_records_that_are_there_are_told_to_whoever_goes_on(tmp_path):
    filled(tmp_path)
    again = Derivatives(tmp_path)
    again.begin(MADE)
    assert again.kept == {FILES[0]: "cd", FILES[1]: ""} and again.refused == 1
    again.keep(FILES[0])
    assert list(again.kept) == [FILES[1]]
    some = Derivatives(tmp_path, frozenset({"02"}))
    some.begin(MADE, retry=True)
    assert some.kept == {} and some.refused == 0
    other = Made("ff" * 32, "", 0.9, False)
    with pytest.raises(InputError, match="this run judges by weights ffff"):
        Derivatives(tmp_path).begin(other)
    anew = Derivatives(tmp_path)
    anew.begin(other, anew=True)
    assert anew.kept == {}


def test_the_groups_table_has_a_row_a_scan_and_a_word_on_each_column(tmp_path):
    filled(tmp_path)
    assert group(tmp_path) == 2
    text = (tmp_path / "phenotype" / "scanwise.tsv").read_text(encoding="utf-8")
    first, second = csv.DictReader(text.splitlines(), delimiter="\t")
    assert first["participant_id"] == "sub-01" and first["session_id"] == "ses-a" and first["AD"] == "0.200000"
    assert first["ventricles"] == "31.5000" and second["verdict"] == "refused" and second["AD"] == "n/a"
    told = json.loads((tmp_path / "phenotype" / "scanwise.json").read_text(encoding="utf-8"))
    assert list(told) == list(first) and told["ventricles"]["Units"] == "mL" and all(told.values())
    assert set(dictionary(replace(COLUMNS, intervals=True))) >= {"AD low", "AD high"}


def test_a_folder_without_records_or_with_a_broken_one_is_told(tmp_path):
    with pytest.raises(InputError, match="no records in it"):
        group(tmp_path)
    filled(tmp_path)
    path = next(tmp_path.glob("sub-01/**/*.json"))
    path.write_text("{")
    with pytest.raises(InputError, match="remove it, and judge that scan again"):
        list(records(tmp_path))


def test_the_label_maps_numbers_are_freesurfers():
    rows = dict(line.split("\t") for line in label_table().splitlines()[1:])
    assert rows["17"] == "left hippocampus" and rows["53"] == "right hippocampus" and rows["16"]


def test_the_validator_of_bids_finds_no_error(tmp_path):
    filled(tmp_path)
    group(tmp_path)
    validator = Path(sys.executable).with_name("bids-validator-deno")
    done = subprocess.run([validator, tmp_path], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 and "[ERROR]" not in done.stdout, done.stdout[-4000:] + done.stderr[-2000:]
    (tmp_path / "stray.txt").write_text("x")  # it does look
    done = subprocess.run([validator, tmp_path], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode and "NOT_INCLUDED" in done.stdout


def test_columns_of_a_group_are_those_of_a_table():
    assert set(dictionary(Columns(["AD"], provenance=True))) == {
        "participant_id",
        "session_id",
        *Columns(["AD"], provenance=True).names,
    }
