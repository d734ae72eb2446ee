"""Shards: what is packed comes back, in a plain tar, once each, and broken-off packing goes on."""

import io
import tarfile
from itertools import islice

import numpy as np
import pytest
import torch
from isal import igzip

import datasets
from data.cache import Cache
from data.shards import INDEX, Shards, packed
from data.tables import DataError
from scans.files import Lock
from tests.labelled import VOLUME


def volumes(count: int) -> list[tuple[str, np.ndarray]]:
    random = np.random.default_rng(0)
    return [(f"{n}.npy", random.random((1, 8, 8, 8)).astype(np.float16)) for n in range(count)]


def names_in(shard) -> list[str]:
    with tarfile.open(shard) as tar:
        return tar.getnames()


def test_what_is_packed_comes_back_whatever_the_order(tmp_path):
    made = volumes(7)
    Shards(tmp_path, "us", size=3000).pack((name, packed(values)) for name, values in made)
    there = Shards(tmp_path, "us")
    for name, values in reversed(made):
        assert name in there and np.array_equal(there.get(name), values)
    assert "other.npy" not in there
    assert len(list(tmp_path.glob("*.tar"))) > 2 and not list(tmp_path.glob("*.part"))


def test_a_shard_is_a_plain_tar_of_arrays(tmp_path):
    made = dict(volumes(3))
    Shards(tmp_path, "us").pack((name, packed(values)) for name, values in made.items())
    with tarfile.open(tmp_path / "000000.tar") as tar:
        assert tar.getnames() == [f"{name}.gz" for name in made]
        for name, values in made.items():
            content = igzip.decompress(tar.extractfile(f"{name}.gz").read())
            assert np.array_equal(np.load(io.BytesIO(content)), values)


def test_packing_that_was_broken_off_goes_on_and_nothing_is_there_twice(tmp_path):
    made = [(name, packed(values)) for name, values in volumes(9)]

    def broken():
        yield from islice(made, 5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Shards(tmp_path, "us", size=3000).pack(broken())
    kept = len(Shards(tmp_path, "us").places)
    assert 0 < kept <= 5
    Shards(tmp_path, "us", size=3000).pack(made + made)
    there = Shards(tmp_path, "us")
    assert len(there.places) == 9
    names = [name for shard in tmp_path.glob("*.tar") for name in names_in(shard)]
    assert sorted(names) == sorted(f"{name}.gz" for name, _ in made)
    assert all(packed(there.get(name)) == content for name, content in made)


def test_shards_of_another_contract_are_refused(tmp_path):
    Shards(tmp_path, "us").pack((name, packed(values)) for name, values in volumes(1))
    with pytest.raises(DataError, match="made for another contract, or by another version"):
        _ = "0.npy" in Shards(tmp_path, "them")


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_damage_is_said(tmp_path, damage):
    Shards(tmp_path, "us").pack((name, packed(values)) for name, values in volumes(2))
    tar = tmp_path / "000000.tar"
    content = bytearray(tar.read_bytes())
    content[1200] ^= 0x55
    if damage == "gone":
        tar.unlink()
    else:
        tar.write_bytes(content if damage == "flipped" else content[:1000])
    with pytest.raises(DataError, match=r"000000\.tar: damaged; empty the folder"):
        Shards(tmp_path, "us").get("0.npy")


def test_a_damaged_stream_is_said_wherever_it_is_damaged(tmp_path):
    content = bytearray(packed(np.zeros((1, 8, 8, 8), np.float16)))
    Shards(tmp_path, "us").pack([("0.npy", bytes(content))])
    tar = tmp_path / "000000.tar"
    whole = tar.read_bytes()
    for byte in range(10, len(content)):  # behind the gzip header
        damaged = bytearray(whole)
        damaged[512 + byte] ^= 0x55
        tar.write_bytes(damaged)
        with pytest.raises(DataError, match=r"000000\.tar: damaged; empty the folder"):
            Shards(tmp_path, "us").get("0.npy")


@pytest.mark.parametrize("gone", ["000001.tar", "000002.tar"])
def test_a_new_shard_takes_no_place_of_another(tmp_path, gone):
    made = [(name, packed(values)) for name, values in volumes(4)]
    Shards(tmp_path, "us", size=1).pack(made[:3])
    (tmp_path / gone).unlink()
    Shards(tmp_path, "us", size=1).pack(made)
    there = Shards(tmp_path, "us")
    for number, (name, content) in enumerate(made):
        if gone == f"{number:06}.tar":
            with pytest.raises(DataError, match=f"{gone}: damaged"):
                there.get(name)
        else:
            assert packed(there.get(name)) == content


@pytest.mark.parametrize("size", [1, 1 << 30])
def test_a_full_disk_leaves_no_half_of_a_shard(tmp_path, monkeypatch, size):
    def full(self):
        self.fileobj.close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "close", full)
    with pytest.raises(OSError, match="No space left"):
        Shards(tmp_path, "us", size).pack((name, packed(values)) for name, values in volumes(2))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", '{"made_by": "us"', "[]", '{"made_by": "us"}', '{"scans": {}}', "\xff"])
def test_a_damaged_index_is_said(tmp_path, text):
    (tmp_path / INDEX).write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=rf"{INDEX}: damaged; delete the folder"):
        _ = "0.npy" in Shards(tmp_path, "us")


def test_one_run_packs_at_a_time_and_others_may_read(tmp_path):
    made = [(name, packed(values)) for name, values in volumes(3)]
    early = Shards(tmp_path, "us")
    assert "0.npy" not in early

    def beside():
        yield made[0]
        with pytest.raises(DataError, match="another run packs its scans there; wait"):
            Shards(tmp_path, "us").pack(made)
        yield made[1]

    Shards(tmp_path, "us").pack(beside())
    early.pack(made)
    lock = Lock(tmp_path / ".lock")
    lock.take()
    Shards(tmp_path, "us").pack(made)  # nothing is left to pack
    lock.release()
    names = [name for shard in sorted(tmp_path.glob("*.tar")) for name in names_in(shard)]
    assert names == [f"{name}.gz" for name, _ in made] and not (tmp_path / ".lock").exists()


def test_cases_are_packed_once_and_read_from_there(tmp_path, cases, reads):
    plain = Cache(tmp_path / "plain", VOLUME.contract)
    wanted = [plain.get(case.file) for case in cases]
    for _ in range(2):
        cache = Cache(tmp_path / "cache", VOLUME.contract, shards=tmp_path / "shards")
        good, failures = datasets.check_readable(cases, cache, workers=0, quiet=True)
        assert good == cases and not failures
    assert len(reads) == 2 * len(cases)  # for the plain cache, and to pack
    for case, values in zip(cases, wanted, strict=True):
        assert torch.equal(cache.get(case.file), values)
    assert len(reads) == 2 * len(cases) and not list((tmp_path / "cache").iterdir())
    assert (tmp_path / "shards" / INDEX).is_file()
