"""The command that serves: what stops it is told in words."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import model
from model import Weights
from networks.header import Header
from studies import STUDIES
from tests.support import ROOT, Server


def start(*arguments: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "app.py", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def test_the_server_and_the_command_line_start_without_what_they_do_not_need_yet():
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import app; print(*sys.modules)"
    code += "; import diagnose; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    server, command = (set(line.split()) for line in done.stdout.splitlines())
    dicom = {"highdicom", "pynetdicom", "dicomweb_client"}  # for results that go back to an archive
    slow = {"nibabel", "pydicom", "fpdf", "matplotlib", "scipy.spatial", "scipy.stats", "requests"}
    assert "torch" in server and (dicom | slow) & server == set()
    assert "diagnose" in command and dicom & command == set()


def test_a_taken_port_and_an_empty_folder_are_told_in_words(server: Server, tmp_path: Path):
    taken = start("--port", server.port, "--uploads", tmp_path / "up")
    assert taken.returncode == 2
    assert f"port {server.port}" in taken.stderr
    assert "--port" in taken.stderr
    assert "Traceback" not in taken.stderr
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "bad.x.safetensors").write_bytes(b"not weights")
    broken = start("--port", "0", "--weights", tmp_path / "weights", "--uploads", tmp_path / "up")
    assert broken.returncode == 2
    assert "bad.x.safetensors" in broken.stderr
    assert "no weights file" in broken.stderr
    assert "Traceback" not in broken.stderr


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pywebio leaves a file open
def test_the_example_of_a_picture_study_is_named_after_it(tmp_path: Path):
    import app

    for name in ("a.jpg", "demo.nii.gz", "dementia-slices.png", "brain-tumour.jpg"):
        (tmp_path / name).touch()
    header = Header(STUDIES["brain-tumour"], "SliceCNN")
    weights = Weights("", "", header, model.NETWORKS["SliceCNN"](2), torch.device("cpu"))
    assert app.find_example(tmp_path, weights) == tmp_path / "brain-tumour.jpg"
    assert app.find_example(tmp_path) == tmp_path / "demo.nii.gz"
    (tmp_path / "brain-tumour.jpg").unlink()
    assert app.find_example(tmp_path, weights) is None
    named = replace(weights, header=replace(weights.header, example={"file": "a.jpg"}))
    assert app.find_example(tmp_path, named) == tmp_path / "a.jpg"
