"""One judged series for all tests of what an archive gets."""

from dataclasses import dataclass, replace
from datetime import datetime
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest

from diagnosis import gate
from diagnosis.anatomy import segment
from diagnosis.diagnoser import Diagnoser, Diagnosis
from diagnosis.maps.explain import Map
from networks.segmenter import CLASSES
from tests import dicom_study
from tests.support import segmentation_of

AT = datetime(2026, 1, 2, 3, 4, 5)


@dataclass(frozen=True, eq=False)
class Judged:
    images: list[pydicom.Dataset]
    diagnosis: Diagnosis
    heat_map: Map


@pytest.fixture(scope="session")
def diagnoser(weights_folder) -> Diagnoser:
    return Diagnoser(next(weights_folder.glob("*.safetensors")), "cpu")


@pytest.fixture(scope="session")
def outlined(judged) -> Diagnosis:
    """The same diagnosis with two hippocampi and a third ventricle."""
    classes = np.zeros(segment.SHAPE, np.uint8)
    classes[40:60, 80:110, 60:90] = CLASSES.index("hippocampus")  # left of the plane at 71.5
    classes[80:100, 80:110, 60:90] = CLASSES.index("hippocampus")
    classes[50:90, 120:140, 60:90] = CLASSES.index("third")
    by = SimpleNamespace(name="segmenter.safetensors", sha256="cd" * 32)
    return replace(judged.diagnosis, segmentation=segmentation_of(classes), segmenter=by)


@pytest.fixture(scope="session")
def judged(diagnoser) -> Judged:
    images = dicom_study.instances()
    diagnosis = diagnoser(dicom_study.packed(images), "series.zip", judge_anyway=True)
    spans = {code: (0.9 * chance, 1.05 * chance) for code, chance in diagnosis.probabilities.items()}
    found = replace(diagnosis, findings=(gate.Finding(gate.UNFIT, "noisy"),), intervals=spans)
    return Judged(images, found, diagnoser.explain(diagnosis))
