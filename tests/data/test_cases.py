"""Labelled files to cases: folders, CSV, BIDS, and who the subject is."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from data.cases import Case, DataError, find, notes
from data.splits import assign
from studies import STUDIES
from tests.labelled import PICTURE, VOLUME, empty, table


def test_folders_as_published_keep_their_test(tmp_path):
    empty(
        tmp_path,
        "AD/002_S_0413_1.nii",
        "AD/deep/er/003_S_1021.nii.gz",
        "CN/sub-07_T1w.nii",
        "MCI/x.nii",
        "test/AD/130_S_0232.nii",
        "valid/CN/b.nii",
        "CN/.hidden.nii",
        "CN/notes.txt",
        "truth.csv",
    )
    found = find(tmp_path, VOLUME)
    got = {case.file.relative_to(tmp_path).as_posix(): (case.label, case.subject, case.split) for case in found}
    assert got == {
        "AD/002_S_0413_1.nii": ("AD", "002_S_0413", None),
        "AD/deep/er/003_S_1021.nii.gz": ("AD", "003_S_1021", None),
        "CN/sub-07_T1w.nii": ("CN", "sub-07", None),
        "MCI/x.nii": ("MCI", "file:MCI/x.nii", None),
        "test/AD/130_S_0232.nii": ("AD", "130_S_0232", "test"),
        "valid/CN/b.nii": ("CN", "file:valid/CN/b.nii", "val"),
    }
    assert any("2 of 6 files name no subject" in note for note in notes(found))


def test_train_beside_test_is_still_to_be_divided(tmp_path):
    empty(
        tmp_path,
        *(f"train/{c}/{n}.png" for c in ("no", "yes") for n in range(5)),
        "test/no/7.png",
        "test/yes/7.png",
    )
    found = find(tmp_path, PICTURE)
    divided = assign(found, 0)
    assert Counter(case.split for case in found) == {None: 10, "test": 2}
    assert Counter(case.split for case in divided) == {"train": 8, "val": 2, "test": 2}


def test_a_study_reads_its_own_kind_of_file(tmp_path):
    empty(tmp_path, "no/a.png", "no/b.nii", "yes/c.PNG")
    assert [case.file.name for case in find(tmp_path, PICTURE)] == ["a.png", "c.PNG"]
    empty(tmp_path / "v", "AD/a.png")
    with pytest.raises(DataError, match=r"AD: no scans in it; known file types: \.nii"):
        find(tmp_path / "v", VOLUME)


@pytest.mark.parametrize("stray", ["Alzheimer/x.nii", "test/adx/x.nii"])
def test_a_stray_folder_is_named_with_the_known_ones(tmp_path, stray):
    empty(tmp_path, "AD/a.nii", stray)
    with pytest.raises(DataError) as error:
        find(tmp_path, VOLUME)
    assert str(Path(stray).parent.as_posix()) in str(error.value) and "AD, CN, MCI, EMCI, LMCI" in str(error.value)


def test_nothing_to_find_is_said(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        find(tmp_path / "none", VOLUME)
    with pytest.raises(DataError, match="no folder of a class"):
        find(tmp_path, VOLUME)


def test_a_rule_finds_the_subject_and_must_fit_every_file(tmp_path):
    empty(tmp_path, "no/no-011_007.png", "yes/yes-044_004.png")
    found = find(tmp_path, PICTURE, subject_regex=r"((?:no|yes)-\d+)_")
    assert [case.subject for case in found] == ["no-011", "yes-044"]
    assert find(tmp_path, PICTURE, subject_regex=r"-\d+")[0].subject == "-011"
    with pytest.raises(DataError, match=r"no/no-011_007\.png: --subject-regex 'yes-\(\\\\d\+\)' does not match"):
        find(tmp_path, PICTURE, subject_regex=r"yes-(\d+)")
    with pytest.raises(DataError, match="unterminated"):
        find(tmp_path, PICTURE, subject_regex="(")


def test_a_study_knows_how_its_patients_are_usually_named(tmp_path):
    study = replace(STUDIES["covid-ct"], contract=PICTURE.contract)
    empty(
        tmp_path,
        "nCoV/train-nCoV-011_007.jpg",
        "nCoV/train-nCoV-011_008.jpg",
        "nCoV/sub-07.png",
        "no_nCoV/train-no_nCoV-011_1.jpg",
        "no_nCoV/other.png",
    )
    found = {case.file.name: case.subject for case in find(tmp_path, study)}
    assert found == {
        "train-nCoV-011_007.jpg": "nCoV-011",
        "train-nCoV-011_008.jpg": "nCoV-011",
        "train-no_nCoV-011_1.jpg": "no_nCoV-011",
        "sub-07.png": "sub-07",
        "other.png": "file:no_nCoV/other.png",
    }  # no refusal: it is a habit, not a person's word
    assert find(tmp_path, study, r"\w+$")[0].subject in ("png", "jpg")


def test_a_csv_gives_labels_subjects_and_splits(tmp_path):
    empty(tmp_path, "a.png", "in/b.png", "c.png")
    index = table(
        tmp_path / "cases.csv",
        "file, class ,subject,split,age\na.png,no,p1,Train,70\nin/b.png,yes,p2,test,71\nc.png,no,,,72\n",
    )
    found = find(index, PICTURE)
    assert found == [
        Case(tmp_path / "a.png", "no", "p1", "train", (("age", "70"),)),
        Case(tmp_path / "c.png", "no", "file:c.png", None, (("age", "72"),)),
        Case(tmp_path / "in/b.png", "yes", "p2", "test", (("age", "71"),)),
    ]
    index.rename(tmp_path / "index.csv")
    assert find(tmp_path, PICTURE) == found


@pytest.mark.parametrize(
    "text, words",
    [
        ("file,label\na.png,maybe\n", r"unknown labels: 'maybe' \(1\); the classes of spots are no, yes"),
        ("file,label\nz.png,no\n", "1 of its 1 files do not exist: .*z.png"),
        ("file,label\na.png,no\na.png,no\n", "listed more than once"),
        ("file,label\na.png,\n", "line 2: no label"),
        ("file,label,split\na.png,no,holdout\n", "split 'holdout'; known: train, val, test"),
        ("file,verdict\na.png,no\n", "no column 'label'; it has file, verdict"),
        ("name,label\na.png,no\n", "no column 'file'; it has name, label"),
        ("file,label\n", "no rows"),
    ],
)
def test_a_bad_csv_is_refused_in_words(tmp_path, text, words):
    empty(tmp_path, "a.png")
    with pytest.raises(DataError, match=words):
        find(table(tmp_path / "cases.csv", text), PICTURE)


def test_bids(tmp_path):
    empty(
        tmp_path,
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_T2w.nii.gz",
        "sub-01/dwi/sub-01_dwi.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz",
        "sub-02/ses-2/anat/sub-02_ses-2_T1w.nii.gz",
        "sub-03/x.nii",
        "derivatives/sub-01/anat/sub-01_T1w.nii.gz",
    )
    table(
        tmp_path / "participants.tsv",
        "participant_id\tage\tdiagnosis\nsub-01\t70\tAD\nsub-02\t71\tCN\nsub-03\tn/a\tn/a\n",
    )
    found = find(tmp_path, VOLUME)
    assert [(case.file.name, case.label, case.subject) for case in found] == [
        ("sub-01_T1w.nii.gz", "AD", "sub-01"),
        ("sub-02_ses-1_T1w.nii.gz", "CN", "sub-02"),
        ("sub-02_ses-2_T1w.nii.gz", "CN", "sub-02"),
    ]
    with pytest.raises(DataError, match="unknown labels: '70'"):
        find(tmp_path, VOLUME, label_column="age")
    empty(tmp_path, "sub-04/anat/sub-04_T1w.nii")
    with pytest.raises(DataError, match="no row for sub-04"):
        find(tmp_path, VOLUME)
    table(
        tmp_path / "participants.tsv",
        "participant_id\tdiagnosis\n" + "".join(f"sub-0{n}\tAD\n" for n in (1, 2, 3, 4, 5)),
    )
    with pytest.raises(DataError, match="no scan of sub-03, sub-05"):
        find(tmp_path, VOLUME)
