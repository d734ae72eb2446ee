"""The Dataset that training reads, and its command line."""

import shutil

import torch
from torch.utils.data import DataLoader

import datasets
from data.cache import Cache
from data.cases import Case
from data.splits import read_split
from datasets import Scans
from tests.labelled import PICTURE, VOLUME, picture, table


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


def test_a_case_s_own_severity_goes_along_with_its_class(cases):
    data = Scans(cases, VOLUME, severities=[0.1 * n for n in range(len(cases))])
    known = [VOLUME.answer(case.label) for case in cases]
    targets = torch.stack([data[n][1] for n in range(len(cases))])
    torch.testing.assert_close(targets, torch.tensor([[answer, 0.1 * n] for n, answer in enumerate(known)]))
    assert [int(target) for _, target in Scans(cases, VOLUME)] == known


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


def test_check_fails_where_labels_contradict_each_other_or_a_file_cannot_be_read(tmp_path, capsys):
    for n in range(4):
        picture(tmp_path / ("no", "yes")[n % 2] / f"{n}.png", n)
    assert datasets.main(["check", str(tmp_path)]) == 0
    (tmp_path / "no" / "bad.png").write_bytes(b"no picture")
    assert datasets.main(["check", str(tmp_path)]) == 1
    assert "1 file that cannot be read" in capsys.readouterr().out
    (tmp_path / "no" / "bad.png").unlink()
    shutil.copy(tmp_path / "no" / "0.png", tmp_path / "yes" / "0.png")
    assert datasets.main(["check", str(tmp_path)]) == 1
    assert "labels differ: no, yes" in capsys.readouterr().out


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
