"""A record as a row."""

import csv

from cohorts.table.rows import Columns, columns_of, write_csv
from diagnosis.diagnoser import Diagnosis, error_record
from scans.scan import ScanError
from studies import STUDIES

CODES = STUDIES["alzheimers"].codes


def test_a_diagnosis_and_a_refusal_fill_the_same_columns(diagnosis: Diagnosis):
    columns = Columns(CODES, intervals=True, measures=("ventricles",), entities=True, provenance=True)
    record = diagnosis.record() | {
        "sha256": "cd" * 32,
        "entities": {"sub": "01"},
        "intervals": {code: [0.25, 0.5] for code in CODES},
        "measures": {"ventricles": {"value": 31.5}},
    }
    row = columns.row(record)
    assert list(row) == columns.names and len(set(columns.names)) == len(columns.names)
    assert row["label"] == "AD" and row["AD"] == 0.55 and row["set"] == "AD LMCI" and row["sub"] == "01"
    # 0.55 of 1, 0.05 of 0.5, 0.05 of 0.25 and 0.2 of 0.75
    assert abs(row["severity"] - 0.7375) < 1e-9 and row["seconds"] == 0.75 and row["weights"] == "ab" * 32
    assert row["precision"] == "fp32"
    assert row["CN low"] == 0.25 and row["CN high"] == 0.5 and row["ventricles"] == 31.5 and row["ses"] == ""
    refused = columns.row(error_record("x.nii", ScanError("empty", "x.nii: two\nlines")))
    assert list(refused) == columns.names and refused["verdict"] == "refused" and refused["error"] == "empty"
    assert refused["reasons"] == "x.nii: two lines" and refused["AD"] is None and refused["label"] == ""
    assert refused["precision"] == ""


def test_a_csv_shows_numbers_and_leaves_blank_what_there_is_not(diagnosis: Diagnosis, tmp_path):
    refusal = error_record("x.nii", ScanError("empty", "x.nii: empty"))
    write_csv(tmp_path / "out.csv", [diagnosis.record(), refusal], Columns(CODES))
    first, second = csv.DictReader((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines())
    assert list(first) == ["file", "label", *CODES, "set", "severity", "verdict", "reasons"]
    assert first["AD"] == "0.550000" and first["severity"] == "0.7375" and first["verdict"] == "doubtful"
    assert second["AD"] == second["set"] == "" and second["reasons"] == "x.nii: empty"


def test_how_dicom_scans_were_acquired_has_its_columns():
    acquisition = {"maker": "Siemens", "model": None, "tesla": 3.0, "sequence": "3D", "weighting": "T1"}
    acquisition |= {"thickness": 1.0, "contrast": True}
    record = {"file": "a.zip", "error": {"message": "no", "code": "x"}, "acquisition": acquisition}
    columns = columns_of([record], ["A", "B"])
    row = dict(zip(columns.names, columns.texts(columns.row(record)), strict=True))
    assert {key: row[key] for key in ("maker", "model", "tesla", "slice_mm", "contrast_agent", "weighting")} == {
        "maker": "Siemens",
        "model": "",
        "tesla": "3.000000",
        "slice_mm": "1.000000",
        "contrast_agent": "yes",
        "weighting": "T1",
    }
    assert "maker" not in columns_of([{"file": "a.nii"}], ["A", "B"]).names


def test_centiles_have_columns_where_there_are_controls():
    measures = {"ventricles": {"value": 31.5, "centile": 97.5}, "brain": {"value": 1100.0, "centile": None}}
    record = {"file": "a.nii", "error": {"message": "no", "code": "x"}, "measures": measures}
    columns = columns_of([record], ["A", "B"])
    assert [name for name in columns.names if "centile" in name] == ["ventricles centile"]
    row = dict(zip(columns.names, columns.texts(columns.row(record)), strict=True))
    assert row["ventricles centile"] == "97.5" and row["ventricles"] == "31.5000" and row["brain"] == "1100.0000"
    measures["ventricles"]["centile"] = None
    assert not any("centile" in name for name in columns_of([record], ["A", "B"]).names)
