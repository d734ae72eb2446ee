"""One judged series for all tests of what an archive gets."""

from dataclasses import dataclass, replace
from datetime import datetime

import pydicom
import pytest

from diagnosis import gate
from diagnosis.diagnoser import Diagnoser, Diagnosis
from diagnosis.maps.explain import Map
from tests import dicom_study

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
def judged(diagnoser) -> Judged:
    images = dicom_study.instances()
    diagnosis = diagnoser(dicom_study.packed(images), "series.zip", judge_anyway=True)
    spans = {code: (0.9 * chance, 1.05 * chance) for code, chance in diagnosis.probabilities.items()}
    found = replace(diagnosis, findings=(gate.Finding(gate.UNFIT, "noisy"),), intervals=spans)
    return Judged(images, found, diagnoser.explain(diagnosis))
