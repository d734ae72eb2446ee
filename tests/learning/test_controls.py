"""A table of controls: what it must hold, who counts once, and what is measured in whom."""

import pytest

from data.cases import DataError
from diagnosis.anatomy import segment as segmenting
from diagnosis.anatomy.measures import MEASURES
from diagnosis.anatomy.norms import NormsError
from learning import controls
from learning.controls import Control
from tests import support
from tests.labelled import empty, table
from tests.segmenters import by_brightness

ROWS = [(f"{k}.nii.gz", 50 + k, "FM"[k % 2]) for k in range(40)]


def text_of(rows, columns="file,age,sex"):
    return "\n".join([columns, *(",".join(map(str, row)) for row in rows)])


def test_a_table_gives_its_controls(tmp_path):
    empty(tmp_path, *(row[0] for row in ROWS))
    found = controls.find(table(tmp_path / "controls.csv", text_of(ROWS)))
    assert found[3] == Control(tmp_path / "3.nii.gz", 53.0, "M") and len(found) == 40
    table(tmp_path / "index.csv", text_of([row[:2] for row in ROWS], "file,age"))
    assert controls.find(tmp_path)[3] == Control(tmp_path / "3.nii.gz", 53.0, None)


@pytest.mark.parametrize(
    ("rows", "columns", "said"),
    [
        (ROWS, "file,years,sex", "no column 'age'; it has file, years, sex"),
        ([("0.nii.gz", "old", "F"), *ROWS[1:]], "file,age,sex", "line 2: age 'old'"),
        ([("0.nii.gz", "50", ""), *ROWS[1:]], "file,age,sex", "line 2: no sex; fill it in"),
        ([("0.nii.gz", "n/a", "F"), *ROWS[1:]], "file,age,sex", "line 2: no age"),
        ([("none.nii.gz", "50", "F"), *ROWS[1:]], "file,age,sex", "1 of its 40 files do not exist"),
        ([*ROWS, ROWS[0]], "file,age,sex", "listed more than once: .*0.nii.gz; keep one row"),
        ([(*row, "Anna") for row in ROWS], "file,age,sex,subject", "several scans of Anna"),
    ],
)
def test_what_is_wrong_with_a_table_is_told(tmp_path, rows, columns, said):
    empty(tmp_path, *(row[0] for row in ROWS))
    with pytest.raises(DataError, match=said):
        controls.find(table(tmp_path / "controls.csv", text_of(rows, columns)))


def test_several_scans_of_a_bids_subject_are_found_by_name(tmp_path):
    rows = [(f"sub-{k:02}/x.nii.gz", 50 + k, "F") for k in range(40)] + [("sub-03/y.nii.gz", 53, "F")]
    empty(tmp_path, *(row[0] for row in rows))
    with pytest.raises(DataError, match="several scans of sub-03"):
        controls.find(table(tmp_path / "controls.csv", text_of(rows)))


def test_fewer_than_forty_are_refused_before_anything_is_measured(tmp_path):
    empty(tmp_path, *(row[0] for row in ROWS))
    with pytest.raises(NormsError, match="39 controls; 40 are the least"):
        controls.find(table(tmp_path / "controls.csv", text_of(ROWS[:39])))
    with pytest.raises(DataError, match="no such file; give a CSV"):
        controls.find(tmp_path / "none.csv")


def test_controls_are_measured_and_what_cannot_be_read_is_left_out(tmp_path):
    good = support.save_nifti(tmp_path / "good.nii.gz", *support.phantom(4.0))
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(good.read_bytes()[:500])
    weights = segmenting.load(by_brightness(tmp_path), "cpu")
    done, left_out = controls.measured([Control(good, 70, None), Control(bad, 71, None)], weights, quiet=True)
    assert [one.control.file for one in done] == [good] and set(done[0].values) == set(MEASURES)
    assert [control.file for control, _ in left_out] == [bad] and "bad.nii.gz" in left_out[0][1]
    weights.header["calibration"] = {}  # the scalp counts in full, which is more than any head holds
    done, left_out = controls.measured([Control(good, 70, None)], weights, quiet=True)
    assert done == [] and "adds up to" in left_out[0][1]
