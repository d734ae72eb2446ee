"""Shards put together."""

import pytest

from cohorts.inputs import InputError
from cohorts.table.forms import FORMS, Made
from cohorts.table.merge import merge, shard_name
from cohorts.table.results import Results
from tests.cohorts.table.test_forms import COLUMNS, MADE, judged, refused


def shards(folder, suffix, of=2, made=MADE):
    paths = [shard_name(folder / f"all{suffix}", (number, of)) for number in range(1, of + 1)]
    for number, path in enumerate(paths, 1):
        results = Results(path, COLUMNS, whole=True)
        results.begin(made)
        by = {"weights": {"name": "w", "sha256": made.weights}}
        results.append(judged(f"{number}a.nii") | by)
        results.append(refused(f"{number}b.nii") | by)
        results.finish()
    return paths


@pytest.mark.parametrize("suffix", FORMS)
def test_all_rows_of_all_shards_in_one_table(tmp_path, suffix):
    paths = shards(tmp_path, suffix)
    assert [path.name for path in paths] == [f"all.shard-1-of-2{suffix}", f"all.shard-2-of-2{suffix}"]
    assert merge(paths, tmp_path / f"all{suffix}") == 4
    whole = Results(tmp_path / f"all{suffix}", COLUMNS)  # which can be gone on with
    whole.begin(MADE)
    whole.close()
    assert sorted(whole.kept) == ["1a.nii", "1b.nii", "2a.nii", "2b.nii"] and whole.refused == 2


def test_what_does_not_belong_together_is_refused(tmp_path):
    one, two, three = shards(tmp_path, ".csv", 3)
    out = tmp_path / "all.csv"

    def said(parts, to=out):
        with pytest.raises(InputError) as error:
            merge(parts, to)
        assert not out.exists()
        return str(error.value)

    assert "no shard 2 of 3" in said([one, three])
    assert "name such a file" in said([one, two, three], tmp_path / "all.jsonl")
    assert "no such file" in said([tmp_path / "none.csv"])
    other = shards(tmp_path / "other", ".csv", made=Made("ff" * 32, "", 0.9, False))
    assert "different wholes" in said([one, two, three, *other])
    plain = tmp_path / "other" / "plain.csv"
    plain.write_bytes(other[0].read_bytes())
    assert "different wholes" in said([one, two, three, plain])
    again, mixed = tmp_path / "again.csv", tmp_path / "mixed.jsonl"
    again.write_bytes(one.read_bytes())
    mixed.write_text("")
    assert "has a row of 1a.nii, which another part has too" in said([again, again])
    (one_other,) = shards(tmp_path / "one", ".csv", 1, Made("ff" * 32, "", 0.9, False))
    assert "judged by weights ffff" in said([two.rename(tmp_path / "two.csv"), one_other])
    (tmp_path / "two.csv").rename(two)
    assert "different kinds" in said([again, mixed])
    again.write_text("file\n")
    assert "other columns" in said([plain, again])
    three.rename(three.with_name(three.name + ".part"))
    assert "not finished" in said([one, two, three])
