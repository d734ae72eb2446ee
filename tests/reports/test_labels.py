"""The label map as a file: the marked voxels of the scan, on its own grid, under its own affine."""

from dataclasses import replace

import nibabel
import numpy as np
import pytest

from diagnosis.diagnoser import Diagnoser
from reports.labels import heat_map_file, label_map, stem, write_labels


@pytest.fixture(scope="module")
def measured(measuring_folder, head_file):
    return Diagnoser(next(measuring_folder.glob("alz*")), "cpu")(head_file)


def test_the_label_map_lies_on_the_scan_and_marks_what_was_outlined(measured, head_file, tmp_path):
    path = write_labels(measured, tmp_path / "new")
    labels, scan = nibabel.load(path), nibabel.load(head_file)
    assert path.name == "head_labels.nii.gz"
    assert labels.affine == pytest.approx(scan.affine) and labels.shape == scan.shape
    assert labels.get_data_dtype() == np.uint8 and labels.header["intent_code"] == 1002  # of the NIfTI standard
    marked = np.asarray(scan.dataobj) == 400  # the mark on the left, which the segmenter takes for a hippocampus
    found = np.asarray(labels.dataobj) == 17
    assert 2 * (marked & found).sum() / (marked.sum() + found.sum()) > 0.95


def test_a_second_scan_of_a_name_gets_a_number(measured, tmp_path):
    names = [write_labels(measured, tmp_path).name for _ in range(2)]
    assert names == ["head_labels.nii.gz", "head-2_labels.nii.gz"]


def test_a_heat_map_lies_on_the_scan_and_says_what_it_is_of(diagnosis, found, tmp_path):
    (tmp_path / "map.nii.gz").write_bytes(heat_map_file(found, diagnosis))
    image = nibabel.load(tmp_path / "map.nii.gz")
    assert image.affine == pytest.approx(diagnosis.scan.affine) and image.get_data_dtype() == np.float32
    np.testing.assert_allclose(np.asarray(image.dataobj), found.values, atol=1e-4)  # the scan fills the grid
    assert image.header["descrip"].item().decode() == "Scanwise relevance for AD"


def test_nothing_outlined_is_said(measured):
    with pytest.raises(ValueError, match=r"head\.nii\.gz: nothing was outlined"):
        label_map(replace(measured, segmentation=None))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.nii.gz", "a"), ("a.b.NII", "a.b"), ("series.zip", "series"), ("scan", "scan"), (".nii.gz", "scan")],
)
def test_a_name_without_its_suffix(name, expected):
    assert stem(name) == expected
