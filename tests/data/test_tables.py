"""Tables as people keep them: signs, names of columns, labels in any case, foreign paths, ADNI's list."""

import pytest

from data.cases import Case, find
from data.tables import DataError, plain, read_table
from tests.labelled import PICTURE, VOLUME, empty, table


@pytest.mark.parametrize("sign", [",", ";", "\t"])
@pytest.mark.parametrize("head", ["file,label,subject", "Path,DIAGNOSIS,Patient ID", "FileName,dx,participant-id"])
def test_signs_and_names_of_columns(tmp_path, sign, head):
    empty(tmp_path, "a.png", "in/b, c.png")
    text = f'{head}\n a.png ,No,p1\n"in/b, c.png",YES,p2\n'
    named = table(tmp_path / "cases.csv", text.replace(",", sign).replace(f"b{sign} c", "b, c"))
    assert find(named, PICTURE) == [
        Case(tmp_path / "a.png", "no", "p1"),
        Case(tmp_path / "in/b, c.png", "yes", "p2"),
    ]


def test_what_tells_people_apart_is_kept_beside_the_label(tmp_path):
    empty(tmp_path, "a.png", "b.png")
    named = table(
        tmp_path / "c.csv",
        "file;label;Age;Gender;Center;Manufacturer;mood\na.png;no;71.5;F;3;Acme;gay\nb.png;yes;n/a;;;;\n",
    )
    first, second = find(named, PICTURE)
    assert first.groups == (("age", "71.5"), ("sex", "F"), ("site", "3"), ("scanner", "Acme"))
    assert second.groups == ()


def test_backslashes_part_folders_unless_a_file_is_called_so(tmp_path):
    empty(tmp_path, "in/deep/a.png", "odd\\b.png")
    named = table(tmp_path / "c.csv", "file,label\nin\\deep\\a.png,no\nodd\\b.png,yes\n")
    assert sorted(case.file for case in find(named, PICTURE)) == [
        tmp_path / "in/deep/a.png",
        tmp_path / "odd\\b.png",
    ]


def test_folders_and_labels_in_another_case_are_the_study_s(tmp_path):
    empty(tmp_path, "ad/a.nii", "Cn/b.nii", "emci/c.nii")
    assert [case.label for case in find(tmp_path, VOLUME)] == ["CN", "AD", "EMCI"]


ADNI = '"Image Data ID","Subject","Group","Sex","Age","Visit","Modality","Description","Type","Acq Date"\n'
ROWS = (
    '"I14437","002_S_0413","CN","F","76","sc","MRI","MPRAGE","Original","5/02/2006"\n'
    '"14438","002_S_0559","EMCI","M","79","sc","MRI","MPRAGE","Original","5/23/2006"\n'
)


def test_the_download_table_of_adni(tmp_path):
    below = (
        "ADNI/002_S_0413/MPRAGE/2006-05-02_12_31_52.0/I14437/ADNI_002_S_0413_MR_MPRAGE_br_raw_S13893_I14437.nii"
    )
    empty(tmp_path, below, "ADNI/002_S_0559/MPRAGE/x/I14438/scan.nii.gz", "ADNI/other/I1443/scan.nii")
    table(tmp_path / "MPRAGE_5_02_2026.csv", ADNI + ROWS)
    first, second = find(tmp_path, VOLUME)
    assert (first.file, first.label, first.subject) == (tmp_path / below, "CN", "002_S_0413")
    assert first.groups == (("age", "76"), ("sex", "F"))
    assert (second.label, second.subject) == ("EMCI", "002_S_0559")
    empty(tmp_path, "ADNI/002_S_0559/MPRAGE/x/I14438/second.nii")
    with pytest.raises(DataError, match="I14438: 2 files of one image, and other files among them; make one"):
        find(tmp_path, VOLUME)
    missing = ADNI + ROWS.replace("I14437", "I99")
    with pytest.raises(DataError, match=r"1 of its 1 images are not below .*: I99; download them"):
        find(table(tmp_path / "list.csv", missing.rsplit('"14438"', 1)[0]), VOLUME)


def test_labels_of_sessions(tmp_path):
    empty(
        tmp_path, *(f"sub-01/ses-{n}/anat/sub-01_ses-{n}_T1w.nii" for n in (1, 2, 3)), "sub-02/anat/sub-02_T1w.nii"
    )
    sessions = "session_id\tdiagnosis\tage\nses-1\tCN\t70\nses-2\tMCI\t72\nses-3\tn/a\t74\n"
    table(tmp_path / "sub-01" / "sub-01_sessions.tsv", sessions)
    table(tmp_path / "participants.tsv", "participant_id\tsex\tdiagnosis\nsub-01\tF\tAD\nsub-02\tM\tcn\n")
    found = [(case.file.name, case.label, dict(case.groups)) for case in find(tmp_path, VOLUME)]
    assert found == [
        ("sub-01_ses-1_T1w.nii", "CN", {"age": "70", "sex": "F"}),
        ("sub-01_ses-2_T1w.nii", "MCI", {"age": "72", "sex": "F"}),
        ("sub-02_T1w.nii", "CN", {"sex": "M"}),
    ]
    (tmp_path / "participants.tsv").unlink()
    assert [case.label for case in find(tmp_path, VOLUME)] == ["CN", "MCI"]


def test_a_table_is_read_as_it_stands(tmp_path):
    read = read_table(table(tmp_path / "t.csv", "File,Class Name\na,\n\nb\n"))
    assert read.columns == ["File", "Class Name"]
    assert read.rows == [{"file": "a", "class_name": ""}, {"file": "b", "class_name": ""}]
    assert plain(" Image Data ID ") == "image_data_id"
    (tmp_path / "t.csv").write_bytes(b"file,label\n\xff\xfe,x\n")
    with pytest.raises(DataError, match="save it as UTF-8 CSV"):
        read_table(tmp_path / "t.csv")
