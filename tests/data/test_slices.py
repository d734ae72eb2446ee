"""Folders of slices as cases: one scan each, persons told apart by digests, nothing of an ID anywhere."""

from io import BytesIO

import numpy as np
import pydicom
import pytest

from data import slices
from data.cache import Cache
from data.cases import find, notes
from data.leaks import leaks
from scans.files import content_hash
from scans.prepare import prepare
from scans.read import read
from studies import STUDIES
from tests.heads import dicom_frames, dicom_slices, head, save, to_bytes, zipped

VOXELS, AFFINE = head((12.0, 12.0, 14.0))
STUDY = STUDIES["alzheimers"]


def write(folder, person, seed=0, other=False, description="t1_mprage"):
    """One person's series as slices with names that say nothing, and a T2 of the same study beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    study = f"1.2.{seed}.{sum(map(ord, person))}"
    parts = [(description, VOXELS + seed)] + ([("t2_tse", VOXELS)] if other else [])
    for number, (name, voxels) in enumerate(parts):
        for place, file in enumerate(dicom_slices(voxels, AFFINE, number + 1)):
            data = pydicom.dcmread(BytesIO(file))
            data.PatientID, data.StudyInstanceUID, data.SeriesDescription = person, study, name
            (folder / f"{number}-{place}").write_bytes(to_bytes(data))
    return folder


def test_a_folder_of_slices_is_one_scan_and_patients_are_told_apart(tmp_path):
    write(tmp_path / "CN" / "one" / "visit1", "74839201", 1, other=True)
    write(tmp_path / "CN" / "one" / "visit2", "74839201", 2)
    write(tmp_path / "AD" / "x", "55501234", 3)
    save(tmp_path / "AD" / "single.nii.gz", VOXELS, AFFINE)
    cases = find(tmp_path, STUDY)
    assert [case.file.relative_to(tmp_path).as_posix() for case in cases] == [
        "AD/single.nii.gz",
        "AD/x",
        "CN/one/visit1",
        "CN/one/visit2",
    ]
    people = [case.subject for case in cases]
    assert people[0] == "file:AD/single.nii.gz" and people[2] == people[3] != people[1]
    assert all(person.startswith("patient-") for person in people[1:])
    assert "74839201" not in repr(cases) and "55501234" not in repr(cases)
    assert [case.subject for case in find(tmp_path, STUDY)] == people  # found again
    assert find(tmp_path, None) == cases
    assert "1 of 4 files name no subject" in notes(cases)[0]


def test_a_name_in_the_path_is_believed_first(tmp_path):
    write(tmp_path / "CN" / "002_S_0413" / "a", "74839201", 1)
    write(tmp_path / "CN" / "elsewhere" / "b", "74839201", 2)
    assert {case.subject for case in find(tmp_path, STUDY)} == {"002_S_0413"}
    assert [case.subject for case in find(tmp_path, STUDY, r"CN/([^/]+)")] == ["002_S_0413", "elsewhere"]


def test_one_patient_everywhere_is_told(tmp_path):
    for number in (1, 2):
        write(tmp_path / "CN" / str(number), "ANON", number)
    assert notes(find(tmp_path, None))[0].startswith("all 2 scans name one patient; if they are of several")


def test_a_table_may_name_folders(tmp_path):
    for number in (1, 2):
        write(tmp_path / "scans" / str(number), f"P{number}", number)
    (tmp_path / "index.csv").write_text("file,label\nscans/1,CN\nscans/2,AD\n")
    one, two = find(tmp_path, STUDY)
    assert (
        one.file == tmp_path / "scans" / "1" and one.subject.startswith("patient-") and one.subject != two.subject
    )


def test_the_tensor_is_that_of_the_zip(tmp_path):
    folder = write(tmp_path / "CN" / "one", "P1", other=True)
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name.startswith("0-")}
    alone = prepare(read(zipped(files), "one.zip"), STUDY.contract).tensor
    cache = Cache(tmp_path / "cache", STUDY.contract)
    np.testing.assert_allclose(cache.get(folder), alone, atol=2e-3, rtol=1e-3)  # kept in half precision
    before = cache.entry(folder)
    (folder / "0-0").rename(folder / "renamed")
    assert cache.entry(folder) == before
    (folder / "0-1").write_bytes(files["0-0"])
    assert cache.entry(folder) != before


def test_the_same_slices_under_other_names_are_the_same_scan(tmp_path):
    first = write(tmp_path / "train" / "CN" / "a", "P1")
    (tmp_path / "test" / "CN" / "b").mkdir(parents=True)
    for number, path in enumerate(sorted(first.iterdir(), reverse=True)):
        (tmp_path / "test" / "CN" / "b" / f"IM{number}").write_bytes(path.read_bytes())
    assert content_hash(first) == content_hash(tmp_path / "test" / "CN" / "b")
    found = {why.split(" patient")[0] for why, *_ in leaks(find(tmp_path, STUDY)).pairs}
    assert found == {"same subject", "same bytes"}


def test_loose_files_of_many_frames_stay_files(tmp_path):
    (tmp_path / "CN").mkdir()
    for number in (1, 2):
        (tmp_path / "CN" / f"{number}.dcm").write_bytes(dicom_frames(VOXELS, AFFINE))
    assert [case.file.name for case in find(tmp_path, STUDY)] == ["1.dcm", "2.dcm"]


@pytest.mark.parametrize(
    ("named", "patients", "expected"),
    [
        ([None, None], ["a", "a"], ["patient-a", "patient-a"]),
        ([None, "s1"], ["a", "a"], ["s1", "s1"]),
        ([None, "s1", "s2"], ["a", "a", "a"], ["patient-a", "s1", "s2"]),  # one number for several is none
        (["s1", None], ["", ""], ["s1", "f1"]),
    ],
)
def test_who_is_shown(named, patients, expected):
    assert slices.subjects(named, patients, [f"f{n}" for n in range(len(named))]) == expected
