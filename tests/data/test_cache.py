"""The cache of prepared tensors: bounded, shared, and never wrong."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

import datasets
import scans
from data import cache as caching
from data.cache import Cache
from data.cases import Case, DataError
from datasets import Scans
from scans.prepare import prepare
from scans.read import read
from studies import STRUCTURES, Contract
from tests.labelled import VOLUME, volume
from tests.support import ROOT


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


@pytest.mark.parametrize("name", ["prepare.py", "new_reader.py"])
def test_an_entry_belongs_to_every_file_that_reads_and_prepares(tmp_path, cases, monkeypatch, name):
    source = Path(shutil.copytree(Path(scans.__file__).parent, tmp_path / "scans"))
    monkeypatch.setattr(scans, "__file__", str(source / "__init__.py"))
    file = cases[0].file
    before = Cache(tmp_path / "cache", VOLUME.contract).entry(file)
    assert Cache(tmp_path / "cache", VOLUME.contract).entry(file) == before
    with (source / name).open("a") as code:
        code.write("# another way to read\n")
    assert Cache(tmp_path / "cache", VOLUME.contract).entry(file) != before


class Outlines:
    """Stands for a segmenter: two levels instead of brightness."""

    key = "outlines"

    def __call__(self, scan):
        return (prepare(scan, VOLUME.contract).tensor > 0).float()


def outlined(folder, **more):
    return Cache(folder, replace(VOLUME.contract, scale=STRUCTURES), to_input=Outlines(), **more)


def test_outlines_are_kept_compressed_and_packed_from_there(tmp_path, cases, reads):
    cache = outlined(tmp_path / "cache", shards=tmp_path / "shards")
    values = cache.get(cases[0].file)
    assert torch.equal(cache.get(cases[0].file), values) and len(reads) == 1
    plain = Cache(tmp_path / "cache", VOLUME.contract)
    plain.get(cases[0].file)
    assert cache.entry(cases[0].file).stat().st_size < plain.entry(cases[0].file).stat().st_size / 3
    name, content = cache.to_pack(cases[0].file)
    assert len(reads) == 2 and content == cache.entry(cases[0].file).read_bytes()
    cache.shards.pack([(name, content)])
    cache.entry(cases[0].file).unlink()
    assert cache.to_pack(cases[0].file) is None
    assert torch.equal(cache.get(cases[0].file), values) and len(reads) == 2
    cache.trim(cache.limit)
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("opened", [lambda folder: Cache(folder, VOLUME.contract), outlined])
@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "text", "gone"])
def test_a_damaged_or_vanished_entry_is_made_anew(tmp_path, cases, reads, damage, opened):
    cache = opened(tmp_path / "cache")
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
    settings = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
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


def test_an_array_may_lie_in_memory_in_any_order(tmp_path):
    cache = Cache(tmp_path / "cache", VOLUME.contract)
    turned = np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)
    assert np.array_equal(cache.made("features", lambda: turned), turned)
    assert np.array_equal(cache.made("features", lambda: np.zeros(1)), turned)  # it was kept
