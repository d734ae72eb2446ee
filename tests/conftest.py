"""Fixtures for every test file."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import model
from data import cache as caching
from data.cases import Case
from diagnosis import gate
from diagnosis.anatomy.measures import measure
from diagnosis.anatomy.segment import SegmenterWeights
from diagnosis.diagnoser import Diagnosis
from diagnosis.maps import explain
from model import ClassificationModel3D, Weights
from networks.header import Header
from networks.memory import keep_memory
from networks.segmenter import Segmenter
from scans.files import content_hash
from scans.prepare import Prepared
from scans.scan import Scan
from studies import STUDIES
from tests.browser import Open, chromium, visiting
from tests.diagnoses import CHANCES, HEADER, brain_of_boxes, head
from tests.labelled import volume
from tests.norms import LAWFUL, made, written
from tests.segmenters import by_brightness
from tests.support import Server, phantom, running, save_nifti, segmentation_of, untrained

keep_memory()  # from test to test: they take a tenth less


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """A cohort and a training set how many threads torch takes; other tests are to keep theirs."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def head_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom, stored with the axes left, inferior, anterior."""
    return save_nifti(tmp_path_factory.mktemp("head") / "head.nii.gz", *phantom(), "LIA")


@pytest.fixture(scope="session")
def weights_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def measuring_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same untrained weights, and beside them a segmenter that knows the phantom's structures, and norms."""
    folder = untrained(tmp_path_factory.mktemp("measuring"))
    written(folder, made(LAWFUL, content_hash(by_brightness(folder))))
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, weights_folder: Path, head_file: Path) -> Iterator[Server]:
    """One server for all tests, offering the phantom as its example."""
    with running(
        tmp_path_factory.mktemp("server"),
        "--weights",
        weights_folder,
        "--example",
        head_file,
        "--max-upload",
        "110",
        "--workers",
        "1",
    ) as started:
        yield started


@pytest.fixture(scope="session")
def browser() -> Iterator:
    with chromium() as started:
        yield started


@pytest.fixture
def visit(browser, server: Server) -> Iterator[Open]:
    with visiting(browser, server) as go:
        yield go


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory):
    """An untrained network, the same each time, calibrated by hand."""
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("weights") / "alzheimers.ClassificationModel3D.safetensors"
    header = Header(
        STUDIES["alzheimers"],
        "ClassificationModel3D",
        title="untrained, for tests",
        calibration={"temperature": 2.0, "scores": [0.1] * 8 + [0.85, 0.95]},
    )
    return model.save(path, model.NETWORKS["ClassificationModel3D"](5), header)


@pytest.fixture(scope="session")
def ball(tmp_path_factory):
    """A ball of tissue with a bright middle, on disk."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in (60, 70, 64)], indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    voxels = np.where(radius < 0.9, 400, 0) + np.where(radius < 0.4, 300, 0)
    path = tmp_path_factory.mktemp("scan") / "head.nii.gz"
    nib.save(nib.Nifti1Image(voxels.astype(np.int16), np.diag([2.5, 2.5, 2.5, 1])), path)
    return path


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


@pytest.fixture(scope="session")
def diagnosis() -> Diagnosis:
    study, voxels = STUDIES["alzheimers"], head()
    network = ClassificationModel3D()
    header = Header(study, study.network, **HEADER)
    weights = Weights("made.safetensors", "ab" * 32, header, network, torch.device("cpu"))
    affine = np.diag([1.2, 1, 1, 1.0])
    facts = {
        "format": "NIfTI",
        "shape": [166, 256, 256],
        "spacing": [1.2, 1.0, 1.0],
        "orientation": "RAS",
        "affine_known": True,
    }
    scan = Scan(voxels, affine, "volume", facts)
    prepared = Prepared(torch.from_numpy(voxels)[None], np.eye(4), torch.from_numpy(voxels > 0), affine, [], facts)
    findings = (gate.Finding(gate.DOUBTFUL, "no-affine"),)
    return Diagnosis(
        file="head <b>1</b>.nii.gz",
        weights=weights,
        label="AD",
        probabilities=CHANCES,
        set=["AD", "LMCI"],
        level=0.9,
        findings=findings,
        judged_anyway=False,
        seconds={"read": 0.25, "predict": 0.5},
        scan=scan,
        prepared=prepared,
    )


@pytest.fixture(scope="session")
def measured(diagnosis: Diagnosis) -> Diagnosis:
    """The same, with a brain, ventricles and hippocampi outlined in it, of which the right one is larger."""
    segmentation = segmentation_of(brain_of_boxes())
    segmenter = SegmenterWeights("made.safetensors", "cd" * 32, {}, Segmenter(), torch.device("cpu"))
    return replace(diagnosis, measures=measure(segmentation), segmentation=segmentation, segmenter=segmenter)


@pytest.fixture(scope="session")
def found() -> explain.Map:
    x, y, z = np.ogrid[:166, :256, :256]
    values = np.exp(-(((x - 110) * 1.2) ** 2 + (y - 120) ** 2 + (z - 120) ** 2) / 200).astype(np.float32)
    return explain.Map(values, "relevance", "AD", 2.5, 0.25)
