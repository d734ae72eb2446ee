"""What a cohort consists of."""

import copy

import pytest

from cohorts.inputs import Cohort, InputError, entities, shard_of
from scans.read import read
from scans.scan import ScanError
from tests import dicom_study, small_scans


def names(cohort):
    return [item.file for item in cohort]


def test_a_folder_is_walked_in_the_order_of_names_without_what_is_hidden_or_ours(tmp_path):
    for name in ("b/2.nii", "b/1.mgz", "a.nii.gz", ".hidden.nii", "b/._1.nii", "maps/a_map.nii.gz", "note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path)
    found = Cohort(tmp_path, outputs=(tmp_path / "maps",))
    assert names(found) == ["a.nii.gz", "b/1.mgz", "b/2.nii"] and found.count() == 3
    assert next(iter(found)).path == str(tmp_path / "a.nii.gz")


def test_of_a_bids_dataset_the_t1_weighted_scans_of_each_or_of_some(tmp_path):
    files = small_scans.dataset(tmp_path)
    (tmp_path / files[0]).with_name("sub-00_ses-a_T2w.nii.gz").write_bytes(b"x")
    (tmp_path / "derivatives").mkdir()
    (tmp_path / "derivatives" / "other.nii").write_bytes(b"x")
    assert names(Cohort(tmp_path)) == files
    assert names(Cohort(tmp_path, participants=frozenset({"03"}))) == files[6:]
    with pytest.raises(InputError, match="no participant 9"):
        names(Cohort(tmp_path, participants=frozenset({"9", "01"})))


def test_damaged_dicom_files_outside_any_study_have_rows_and_other_documents_none(tmp_path):
    image, *more = dicom_study.instances(8.0)[:3]
    dicom_study.written([image, *more], tmp_path / "study")
    whole = (tmp_path / "study" / "0.dcm").read_bytes()
    document = copy.deepcopy(image)
    del document.PixelData, document.Rows
    document.Modality = "SR"
    files = {"empty.dcm": b"", "cut.dcm": whole[:100], "odd.dcm": b"x" * 300, "study/bad.dcm": b"x" * 300}
    files |= {"report.dcm": dicom_study.to_bytes(document), "DICOMDIR": dicom_study.to_bytes(document)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    found = Cohort(tmp_path)
    assert names(found) == ["cut.dcm", "empty.dcm", "odd.dcm", "study"] and found.count() == 4
    for item in list(found)[:3]:
        with pytest.raises(ScanError, match=item.file):
            read(item.path)


def test_every_scan_is_in_one_shard(tmp_path):
    files = small_scans.dataset(tmp_path, 20)
    parts = [names(Cohort(tmp_path, shard=(number, 3))) for number in (1, 2, 3)]
    assert sorted(file for part in parts for file in part) == files and min(map(len, parts)) > 5


@pytest.mark.parametrize(("suffix", "between"), [(".csv", ","), (".tsv", "\t")])
def test_a_table_lists_files_from_where_it_lies(tmp_path, suffix, between):
    table = tmp_path / f"list{suffix}"
    table.write_text(f"age{between}file\n70{between}far/b.nii\n71{between}a.nii\n")
    found = Cohort(table)
    assert names(found) == ["far/b.nii", "a.nii"]
    assert [item.path for item in found] == [str(tmp_path / "far/b.nii"), str(tmp_path / "a.nii")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name\nx.nii\n", "no column 'file'; it has name"),
        ("file\nx.nii\n\ny.nii\nx.nii\n", "lists x.nii more than once"),
        ("age,file\n70,\n", "line 2: no file"),
    ],
)
def test_a_table_that_lists_nothing_or_twice_is_refused(tmp_path, text, words):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        Cohort(tmp_path / "list.csv").count()


def test_a_name_that_no_row_can_hold_is_refused(tmp_path):
    (tmp_path / "two\nlines.nii").write_bytes(b"x")
    with pytest.raises(InputError, match=r"two\\nlines.nii.*rename"):
        Cohort(tmp_path).count()


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        Cohort(tmp_path / "nowhere").count()


def test_entities_are_those_of_the_name():
    named = "sub-01/ses-x2/anat/sub-01_ses-x2_acq-mprage_run-3_T1w.nii.gz"
    assert entities(named) == {"sub": "01", "ses": "x2", "acq": "mprage", "run": "3"}
    assert entities("plain.nii") == {}


@pytest.mark.parametrize("text", ["0/3", "4/3", "2", "a/b", "1/0", "-1/2"])
def test_a_part_of_no_whole_is_refused(text):
    assert shard_of("2/8") == (2, 8)
    with pytest.raises(ValueError, match="such as 2/8"):
        shard_of(text)
