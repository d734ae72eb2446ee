"""A table that grows, and what a crash leaves of it."""

import errno
import os

import pytest

from cohorts.inputs import InputError
from cohorts.table.forms import FORMS, Made
from cohorts.table.results import Results
from tests.cohorts.table.test_forms import COLUMNS, MADE, judged, refused


def opened(path, whole=False, made=MADE, **how):
    results = Results(path, COLUMNS, whole)
    results.begin(made, **how)
    return results


def fill(path, *records, finish=True, **how):
    results = opened(path, **how)
    for record in records:
        results.append(record)
    if finish:
        results.finish()
    results.close()
    return results


def files(path):
    results = Results(path, COLUMNS)
    results.begin(MADE)
    results.close()
    return list(results.kept)


@pytest.fixture(params=FORMS)
def path(request, tmp_path):
    return tmp_path / f"answers{request.param}"


def test_rows_that_are_there_are_told_to_whoever_goes_on(path):
    fill(path, judged("a.nii"), refused("b.nii"), finish=False)
    results = opened(path)
    assert results.kept == {"a.nii": "cd", "b.nii": ""} and results.refused == 1
    results.keep("a.nii")
    results.append(judged("c.nii", sha256="ee"))
    results.finish()
    assert opened(path).kept == {"a.nii": "cd", "b.nii": "", "c.nii": "ee"}


def test_a_line_torn_at_any_byte_is_cut_off(path):
    fill(path, judged("a.nii"), judged("b.nii"), finish=False)
    working = Results(path, COLUMNS).working
    whole = working.read_bytes()
    last = whole.rindex(b"\n", 0, len(whole) - 1) + 1
    for end in range(last, len(whole), 7):
        working.write_bytes(whole[:end])
        results = opened(path)
        assert list(results.kept) == ["a.nii"] and working.read_bytes() == whole[:last]
        results.close()
    for end in (0, 3):  # what a power cut may leave
        working.write_bytes(whole[:end])
        assert files(path) == [] and working.read_bytes() == Results(path, COLUMNS).form.head


def test_a_scan_that_changed_has_its_new_row_alone(path):
    fill(path, judged("a.nii"), judged("b.nii"))
    fill(path, judged("a.nii", sha256="new"))
    results = opened(path)
    assert results.kept == {"a.nii": "new", "b.nii": "cd"}
    results.close()
    # killed before the old row went
    results = opened(path)
    results.append(judged("b.nii", sha256="newer"))
    results.close()
    again = opened(path)
    assert again.kept == {"a.nii": "new", "b.nii": "newer"}
    assert len(list(again._entries())) == 2


def test_refused_files_are_tried_again_on_request(path):
    fill(path, judged("a.nii"), refused("b.nii"))
    results = opened(path, retry=True)
    assert list(results.kept) == ["a.nii"] and results.refused == 0 and len(list(results._entries())) == 1


def test_a_table_made_otherwise_is_left_alone(path):
    fill(path, judged("a.nii"))
    before = path.read_bytes()
    other = Made("ff" * 32, "", 0.9, False)
    with pytest.raises(
        InputError, match=r"by weights abababababab at level 0\.9, and this run judges by weights ff"
    ):
        opened(path, made=other)
    assert path.read_bytes() == before
    path.rename(path.with_name(f"shard{path.suffix}"))
    with pytest.raises(InputError, match="by weights"):
        opened(path.with_name(f"shard{path.suffix}"), whole=True, made=other)
    path.with_name(f"shard{path.suffix}").rename(path)
    assert path.read_bytes() == before
    results = opened(path, made=other, anew=True)
    assert results.kept == {}


def test_a_table_of_other_columns_is_left_alone(tmp_path):
    path = tmp_path / "answers.csv"
    path.write_text("file,mine\nx,1\n")
    with pytest.raises(InputError, match=r"other columns than this run writes \(file,mine"):
        opened(path)
    assert path.read_text() == "file,mine\nx,1\n"


def test_a_row_that_cannot_be_read_is_told_by_its_number(path):
    fill(path, judged("a.nii"), judged("b.nii"), finish=False)
    working = Results(path, COLUMNS).working
    lines = working.read_bytes().splitlines(True)
    working.write_bytes(b"".join([*lines[:-1], b"{]\n", lines[-1]]))
    with pytest.raises(InputError, match="row 2 cannot be read"):
        opened(path)


def test_two_runs_do_not_write_one_table(path):
    results = opened(path)
    with pytest.raises(InputError, match="another run writes there"):
        opened(path)
    results.close()
    opened(path).close()


def test_a_shard_and_parquet_appear_when_all_rows_are_there(tmp_path):
    for path, whole in ((tmp_path / "a.csv", True), (tmp_path / "a.parquet", False)):
        fill(path, judged("a.nii"), finish=False, whole=whole)
        assert not path.exists() and path.with_name(path.name + ".part").is_file()
        fill(path, judged("b.nii"), whole=whole)
        assert path.is_file() and not path.with_name(path.name + ".part").exists()
        assert not path.with_name(f".{path.name}.part.lock").exists()


def test_a_full_disk_is_told_and_leaves_whole_rows(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    results = opened(path)
    results.append(judged("a.nii"))
    before, write = path.read_bytes(), os.write
    room = [10, 0]

    def full(descriptor, line):
        size = room.pop(0)
        if not size:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, line[:size])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(InputError, match="No space left on device"):
        results.append(judged("b.nii"))
    monkeypatch.undo()
    assert path.read_bytes() == before
    results.close()
