"""Finding, splitting, checking and loading labelled scans, on small real files."""

import csv
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import datasets
from data import cache as caching
from data.cache import Cache
from data.cases import Case, DataError, find, notes
from data.leaks import Leaks, contradictions, deduplicate, leaks
from data.splits import assign, folds, read_split, subject_hash, write_split
from datasets import Scans
from scans.prepare import prepare
from scans.read import read
from studies import STUDIES, Contract, Label, Study

VOLUME = replace(
    STUDIES["alzheimers"],
    contract=Contract(
        kind="volume", shape=(12, 14, 10), spacing=(2.0, 2.0, 2.0), place="head", anchor=(0.5, 0.5, 0.5)
    ),
)
PICTURE = Study(
    key="spots",
    title="Spots",
    question="Is there a spot?",
    labels=(Label("no", "none"), Label("yes", "a spot")),
    contract=Contract(kind="image", shape=(16, 16), place="squeeze", scale="unit"),
    network="any",
    networks=("any",),
    use="Tests.",
)


def volume(path: Path, seed: int = 0, bad: bool = False) -> Path:
    """A bright ball in noise; a bad one is cut short."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y, z = np.indices((14, 16, 12)) - np.array([7, 8, 6])[:, None, None, None]
    ball = 100.0 * (x * x + y * y + z * z < 25) + np.random.default_rng(seed).random((14, 16, 12)) * 20
    nibabel.save(nibabel.Nifti1Image(ball.astype(np.float32), np.diag([2, 2, 2, 1.0])), path)
    if bad:
        path.write_bytes(path.read_bytes()[:400])
    return path


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 20), np.uint8)).save(path)
    return path


def empty(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def people(count: int, scans_each: int = 2) -> list[Case]:
    return [
        Case(Path(f"/d/{label}/{n:03}_S_{1000 + n}_{m}.nii"), label, f"{n:03}_S_{1000 + n}")
        for n in range(count)
        for m in range(scans_each)
        for label in [("AD", "CN", "MCI")[n % 3]]
    ]


# ---- finding


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


@pytest.mark.parametrize("stray", ["Alzheimer/x.nii", "test/ad/x.nii"])
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


def table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8-sig")
    return path


def test_a_csv_gives_labels_subjects_and_splits(tmp_path):
    empty(tmp_path, "a.png", "in/b.png", "c.png")
    index = table(
        tmp_path / "cases.csv",
        "file, class ,subject,split,age\na.png,no,p1,Train,70\nin/b.png,yes,p2,test,71\nc.png,no,,,72\n",
    )
    found = find(index, PICTURE)
    assert found == [
        Case(tmp_path / "a.png", "no", "p1", "train"),
        Case(tmp_path / "c.png", "no", "file:c.png", None),
        Case(tmp_path / "in/b.png", "yes", "p2", "test"),
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


# ---- splits


def test_a_split_is_by_person_in_proportion_and_the_same_in_any_order():
    cases = people(60)
    divided = assign(cases, seed=3)
    sides = defaultdict(set)
    for case in divided:
        sides[case.subject].add(case.split)
    assert all(len(splits) == 1 for splits in sides.values())
    for label in ("AD", "CN", "MCI"):  # 20 people each: 20 % are 4, 15 % are 3
        part = Counter(case.split for case in divided if case.label == label)
        assert part == {"test": 8, "val": 6, "train": 26}
    assert set(assign(cases[::-1], seed=3)) == set(divided)
    assert set(assign(cases, seed=4)) != set(divided)


@pytest.mark.parametrize(
    "count, expected", [(1, {"train": 1}), (2, {"train": 1, "test": 1}), (3, {"train": 1, "val": 1, "test": 1})]
)
def test_small_classes_keep_one_to_learn_from(count, expected):
    cases = [Case(Path(f"{n}.nii"), "AD", str(n)) for n in range(count)]
    assert Counter(case.split for case in assign(cases, 0)) == expected


def test_what_is_divided_already_stays():
    cases = [replace(case, split="test") if case.subject < "009" else case for case in people(30)]
    divided = assign(cases, 0)
    assert [a.split for a in divided if a.subject < "009"] == ["test"] * 18
    assert {case.split for case in divided if case.subject >= "009"} == {"train", "val"}


def test_folds_hold_out_every_person_once():
    cases = people(12)
    ways = folds(cases, 4, seed=0)
    held = Counter(case.subject for way in ways for case in way if case.split == "test")
    assert held == dict.fromkeys({case.subject for case in cases}, 2)  # both scans, once
    assert all(not datasets_share(way) for way in ways)
    assert [set(way) for way in folds(cases[::-1], 4, seed=0)] == [set(way) for way in ways]
    with pytest.raises(DataError, match="13 folds of 12 undivided subjects"):
        folds(cases, 13, seed=0)


def datasets_share(way: list[Case]) -> set[str]:
    parts = [{case.subject for case in way if case.split == split} for split in ("train", "val", "test")]
    return (parts[0] & parts[1]) | (parts[0] & parts[2]) | (parts[1] & parts[2])


def test_a_written_split_reads_back(tmp_path):
    data = tmp_path / "data"
    empty(data, *(f"{c}/{n}.png" for c in ("no", "yes") for n in range(4)))
    divided = assign(find(data, PICTURE), 0)
    write_split(tmp_path / "out" / "split.csv", divided, data)
    assert read_split(tmp_path / "out" / "split.csv", data, PICTURE) == divided
    with (tmp_path / "out" / "split.csv").open() as lines:
        assert next(csv.DictReader(lines))["file"] == "no/0.png"
    with pytest.raises(DataError, match="unknown labels"):
        read_split(tmp_path / "out" / "split.csv", data, VOLUME)


# ---- leaks


def test_leaks_of_every_kind_are_listed(tmp_path):
    one = picture(tmp_path / "train/a.png", 1)
    other = picture(tmp_path / "test/b.png", 2)
    copy = Path(shutil.copy(one, tmp_path / "test/copy.png"))
    again = tmp_path / "val/again.png"
    again.parent.mkdir()
    Image.open(other).save(again, compress_level=0)  # other bytes, the same pixels
    twin = Path(shutil.copy(other, tmp_path / "test/twin.png"))
    third = picture(tmp_path / "train/c.png", 3)
    found = leaks(
        [
            Case(one, "no", "p1", "train"),
            Case(other, "no", "p2", "test"),
            Case(copy, "yes", "p3", "test"),
            Case(again, "no", "p4", "val"),
            Case(twin, "no", "p5", "test"),
            Case(third, "no", "p2", "train"),
        ]
    )
    assert {(why, a.file, b.file) for why, a, b in found.pairs} == {
        ("same subject p2", third, other),
        ("same bytes", one, copy),
        ("same pixels", again, other),
        ("same pixels", again, twin),
    }
    assert [[case.file for case in group] for group in found.duplicates] == [[other, twin]]
    text = str(found)
    assert "4 leaks between splits:" in text and "same bytes: train train/a.png – test test/copy.png" in text
    assert "1 group of identical pictures inside a split:\n  test: test/b.png, test/twin.png" in text


def test_the_same_volume_compressed_is_the_same_picture(tmp_path):
    cases = [
        Case(volume(tmp_path / name, 1), "AD", name, split)
        for name, split in (("a.nii", "train"), ("b.nii.gz", "test"))
    ]
    assert [pair[0] for pair in leaks(cases).pairs] == ["same pixels"]


def test_long_lists_are_cut_with_their_count(tmp_path):
    file = picture(tmp_path / "a.png")
    cases = [Case(file, "no", str(n // 2), ("train", "test")[n % 2]) for n in range(60)]
    pairs = tuple(("same subject", *pair) for pair in zip(cases[::2], cases[1::2], strict=True))
    lines = str(Leaks(pairs, ())).splitlines()
    assert lines[0] == "30 leaks between splits:" and len(lines) == 22 and lines[-1] == "  and 10 more"


def test_what_cannot_be_read_does_not_stop_the_check(tmp_path):
    cases = [Case(volume(tmp_path / f"{n}.nii", n, bad=n == 1), "AD", str(n), "train") for n in range(3)]
    found = leaks(cases)
    assert not found.pairs and [case.subject for case, _ in found.unreadable] == ["1"]
    assert "1 file that cannot be read" in str(found)


def test_deduplicate_keeps_the_test_case_and_refuses_torn_labels(tmp_path):
    one = picture(tmp_path / "a.png", 1)
    copy = Path(shutil.copy(one, tmp_path / "b.png"))
    cases = [
        Case(one, "no", "1", "train"),
        Case(copy, "no", "2", "test"),
        Case(picture(tmp_path / "c.png", 2), "yes", "3", "train"),
    ]
    assert deduplicate(cases) == cases[1:]
    torn = [replace(cases[0], label="yes"), *cases[1:]]
    with pytest.raises(DataError, match=r"labels differ: no, yes"):
        deduplicate(torn)
    assert deduplicate(torn, refuse=False) == cases[2:]
    [line] = contradictions(leaks(torn))
    assert "a.png" in line and "b.png" in line and "labels differ: no, yes" in line


# ---- the cache and the data set


@pytest.fixture
def cases(tmp_path) -> list[Case]:
    return [
        Case(volume(tmp_path / "data" / label / f"sub-{n}.nii.gz", n), label, f"sub-{n}")
        for n, label in enumerate(("AD", "CN", "MCI"))
    ]


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Every file that is read from here on."""
    seen, plain = [], caching.read

    def read(file, *rest, **more):
        seen.append(str(file))
        return plain(file, *rest, **more)

    monkeypatch.setattr(caching, "read", read)
    return seen


def test_the_second_epoch_reads_no_scan(tmp_path, cases, reads):
    data = Scans(cases, VOLUME, Cache(tmp_path / "cache", VOLUME.contract))
    first = [data[i] for i in range(3)]
    shutil.rmtree(tmp_path / "data")
    second = [data[i] for i in range(3)]
    assert len(reads) == 3
    assert [y for _, y in second] == [0, 1, 2]
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, second, strict=True))
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".npy"}


def test_what_is_cached_is_what_was_prepared(tmp_path, cases):
    plain, _ = Scans(cases, VOLUME)[1]
    kept, _ = Scans(cases, VOLUME, Cache(tmp_path / "cache", VOLUME.contract))[1]
    assert kept.dtype == torch.float32 and kept.shape == (1, 12, 14, 10)
    torch.testing.assert_close(kept, plain, rtol=2**-11, atol=2**-14)  # half a unit in float16's last place


def test_values_that_float16_cannot_hold_are_kept_whole(tmp_path, cases):
    contract = Contract(kind="volume", shape=(8, 8, 8), place="fill", scale="stored")
    big = nibabel.Nifti1Image(np.linspace(0, 1e6, 14 * 16 * 12, dtype=np.float32).reshape(14, 16, 12), np.eye(4))
    nibabel.save(big, tmp_path / "big.nii")
    cache = Cache(tmp_path / "cache", contract)
    expected = prepare(read(tmp_path / "big.nii"), contract).tensor
    assert torch.equal(cache.get(tmp_path / "big.nii"), expected)
    assert torch.equal(cache.get(tmp_path / "big.nii"), expected)


def test_an_entry_belongs_to_content_and_contract(tmp_path, cases):
    cache = Cache(tmp_path / "cache", VOLUME.contract)
    other = Cache(tmp_path / "cache", replace(VOLUME.contract, shape=(10, 10, 10)))
    file = cases[0].file
    copy = Path(shutil.copy(file, tmp_path / "copy.nii.gz"))
    assert cache.entry(file) == cache.entry(copy) != other.entry(file)
    before = cache.entry(file)
    volume(file, seed=99)
    os.utime(file, ns=(1, 1))  # another time, whatever the clock's grain
    assert cache.entry(file) != before


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "text", "gone"])
def test_a_damaged_or_vanished_entry_is_made_anew(tmp_path, cases, reads, damage):
    cache = Cache(tmp_path / "cache", VOLUME.contract)
    good = cache.get(cases[0].file)
    entry = cache.entry(cases[0].file)
    data = bytearray(entry.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 0x55
    entry.write_bytes({"empty": b"", "cut": data[:-100], "flipped": data, "text": b"hello", "gone": b""}[damage])
    if damage == "gone":
        entry.unlink()
    assert torch.equal(cache.get(cases[0].file), good) and len(reads) == 2
    assert torch.equal(cache.get(cases[0].file), good) and len(reads) == 2


def test_the_cache_is_bounded_and_forgets_the_longest_unused(tmp_path, reads):
    files = [volume(tmp_path / f"{n}.nii", n) for n in range(5)]
    size = 12 * 14 * 10 * 2 + 132
    cache = Cache(tmp_path / "cache", VOLUME.contract, limit_bytes=3 * size)
    for age, file in enumerate(files[:3]):
        cache.get(file)
        os.utime(cache.entry(file), (1000 + age, 1000 + age))
    cache.get(files[0])  # used again, so that files[1] is the oldest now
    for file in files[3:]:
        cache.get(file)
        assert sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()) <= 3 * size
    assert cache.entry(files[0]).exists()
    assert not cache.entry(files[1]).exists() and not cache.entry(files[2]).exists()
    Cache(tmp_path / "none", VOLUME.contract, limit_bytes=10).get(files[0])
    assert not list((tmp_path / "none").iterdir())


def test_a_full_disk_is_said_and_leaves_nothing_half_written(tmp_path, cases, monkeypatch):
    def full(out, values):
        out.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.np, "save", full)
    with pytest.raises(DataError, match=r"No space left on device.*free some disk"):
        Cache(tmp_path / "cache", VOLUME.contract).get(cases[0].file)
    assert not list((tmp_path / "cache").iterdir())


HAMMER = """
import sys
from pathlib import Path
from data.cache import Cache
from studies import Contract
contract = Contract(kind="volume", shape=(12, 14, 10), place="fill")
cache = Cache(sys.argv[2], contract, limit_bytes=2 * (12 * 14 * 10 * 2 + 132))
for turn in range(4):
    for file in sorted(Path(sys.argv[1]).glob("*.nii")):
        assert cache.get(file).isfinite().all()
"""


def test_two_processes_share_a_cache_too_small_for_both(tmp_path):
    for n in range(4):
        volume(tmp_path / "data" / f"{n}.nii", n)
    settings = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", HAMMER, tmp_path / "data", tmp_path / "cache"],
            env=settings,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    assert [(process.communicate()[1], process.returncode) for process in both] == [("", 0), ("", 0)]
    assert not list((tmp_path / "cache").glob("*.part"))


def test_bad_files_are_named_and_the_rest_prepared(tmp_path, reads):
    cases = [Case(volume(tmp_path / f"{n}.nii", n, bad=n == 5), "AD", str(n)) for n in range(18)]
    cache = Cache(tmp_path / "cache", VOLUME.contract)
    before = torch.get_rng_state()
    good, failures = datasets.check_readable(cases, cache, workers=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert good == cases[:5] + cases[6:]
    assert [(case.subject, "5.nii" in reason) for case, reason in failures] == [("5", True)]
    data = Scans(good, VOLUME, cache)
    assert len([data[i] for i in range(len(data))]) == 17 and not reads  # read in the workers, not here


def test_augmentation_depends_on_seed_epoch_and_index_alone(tmp_path, cases):
    cache = Cache(tmp_path / "cache", VOLUME.contract)
    data = Scans(cases, VOLUME, cache, augment="full", seed=1)
    zero = [x for x, _ in data]
    data.set_epoch(1)
    one = [x for x, _ in DataLoader(data, batch_size=None, num_workers=2)]
    assert all(x.shape == (1, 12, 14, 10) and x.isfinite().all() for x in one)
    assert not any(torch.equal(a, b) for a, b in zip(zero, one, strict=True))
    again = Scans(cases, VOLUME, cache, augment=True, seed=1)
    again.set_epoch(1)
    assert all(torch.equal(again[i][0], one[i]) for i in (2, 0, 1))
    other = Scans(cases, VOLUME, cache, augment="full", seed=2)
    assert not torch.equal(other[0][0], zero[0])


def test_living_workers_see_the_next_epoch(cases):
    data = Scans(cases, VOLUME, augment="light")
    loader = DataLoader(data, batch_size=None, num_workers=1, persistent_workers=True)
    first = [x for x, _ in loader]
    data.set_epoch(7)
    second = [x for x, _ in loader]
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(second[2], data[2][0])


def test_pictures_go_the_same_way(tmp_path, reads):
    cases = [Case(picture(tmp_path / f"{n}.png", n), ("no", "yes")[n % 2], str(n)) for n in range(4)]
    data = Scans(cases, PICTURE, Cache(tmp_path / "cache", PICTURE.contract), augment="full")
    assert [data[i][0].shape for i in range(4)] == [(1, 16, 16)] * 4
    assert [data[i][1] for i in range(4)] == [0, 1, 0, 1] and len(reads) == 4


# ---- the command line


def test_check_and_split_from_the_command_line(tmp_path, capsys):
    data = tmp_path / "data"
    for n in range(10):
        picture(data / ("no", "yes")[n % 2] / f"{n}.png", n)
    shutil.copy(data / "no/0.png", data / "no/copy.png")
    assert datasets.main(["check", str(data)]) == 0
    said = capsys.readouterr().out
    assert "undivided: no/0.png, no/copy.png" in said and "11 of 11 files name no subject" in said
    table(
        tmp_path / "by-hand.csv",
        "file,label,split\n"
        + "".join(f"no/{name}.png,no,{split}\n" for name, split in (("0", "train"), ("copy", "test"))),
    )
    assert datasets.main(["check", str(data), "--split", str(tmp_path / "by-hand.csv")]) == 1
    assert "same bytes: train no/0.png – test no/copy.png" in capsys.readouterr().out
    out = tmp_path / "split.csv"
    assert datasets.main(["split", str(data), "--out", str(out), "--deduplicate"]) == 0
    assert len(read_split(out, data)) == 10
    assert datasets.main(["split", str(data), "--out", str(out), "--deduplicate", "--folds", "2"]) == 0
    assert len(read_split(tmp_path / "split.2.csv", data)) == 10
    assert datasets.main(["check", str(tmp_path / "none")]) == 1
    assert "no such file or folder" in capsys.readouterr().err


def test_an_index_knows_subjects_better_than_a_split_by_slice(tmp_path, capsys):
    for n in range(8):
        picture(tmp_path / "no" / f"{n}.png", n)
    table(
        tmp_path / "index.csv",
        "file,class,subject,slice\n" + "".join(f"no/{n}.png,no,person{n // 4},{n}\n" for n in range(8)),
    )
    table(
        tmp_path / "s.csv",
        "file,label,split\n" + "".join(f"no/{n}.png,no,{('train', 'test')[n % 2]}\n" for n in range(8)),
    )
    assert datasets.main(["check", str(tmp_path), "--split", str(tmp_path / "s.csv")]) == 1
    assert "same subject person0" in capsys.readouterr().out
    assert datasets.main(["split", str(tmp_path), "--out", str(tmp_path / "fair.csv")]) == 0
    assert datasets.main(["check", str(tmp_path), "--split", str(tmp_path / "fair.csv")]) == 0


def test_a_subject_hash_is_stable_and_says_nothing():
    assert subject_hash("002_S_0413") == subject_hash("002_S_0413")
    assert subject_hash("002_S_0413") != subject_hash("002_S_0414")
    assert set(subject_hash("002_S_0413")) <= set("0123456789abcdef")
