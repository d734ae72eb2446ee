"""What a run says of its machine: versions that are installed, a source that changes with the code, no name."""

import platform
from importlib import metadata

import torch

from learning import environment


def test_the_machine_is_told_without_its_name():
    told = environment.environment(torch.device("cpu"))
    assert told["packages"]["nibabel"] == metadata.version("nibabel")
    assert told["packages"]["torch"] == metadata.version("torch")
    assert "pytest" not in told["packages"]  # no run needs it
    assert told["cores"] >= 1 and told["processor"] and told["device"] == "cpu"
    assert platform.node() not in (told["system"], told["processor"])
    assert environment.versions()["python"] == platform.python_version()


def test_the_source_is_what_lies_there(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    (tmp_path / "train.py").write_text("one")
    for package in ("scans", "notes"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "read.py").write_text("two")
    (tmp_path / "scans" / "__init__.py").touch()
    first = environment.source()
    assert len(first) == 64 and environment.source() == first
    (tmp_path / "notes" / "read.py").write_text("no package")
    assert environment.source() == first
    (tmp_path / "scans" / "read.py").write_text("three")
    assert environment.source() != first
    assert environment.packages()["pytest"]  # no locks: everything
