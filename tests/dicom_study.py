"""A study as a scanner would send it: the phantom's slices with a patient, a study and a frame of reference."""

import io
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import generate_uid

from tests import heads
from tests.support import phantom

NAME, NUMBER, BORN = "Müller^Jörg", "74839201", "19400203"  # of nobody
WHO = {
    "SpecificCharacterSet": "ISO_IR 100",
    "PatientName": NAME,
    "PatientID": NUMBER,
    "PatientBirthDate": BORN,
    "PatientSex": "O",
    "StudyDate": "20200102",
    "StudyTime": "101112",
    "StudyID": "17",
    "AccessionNumber": "A-4711",
    "StudyDescription": "Schädel",
    "ReferringPhysicianName": "Doc^Tor",
}


def instances(step: float = 4.0, **attributes: object) -> list[pydicom.Dataset]:
    """One axial MR image a plane; attributes take the place of `WHO`'s, None takes one away."""
    frame, found = generate_uid(), []
    for number, body in enumerate(heads.dicom_slices(*phantom(step))):
        image = pydicom.dcmread(io.BytesIO(body))
        told = {"FrameOfReferenceUID": frame, "PositionReferenceIndicator": ""} | WHO | attributes
        for keyword, value in told.items():
            if value is not None:
                setattr(image, keyword, value)
            elif keyword in image:
                delattr(image, keyword)
        image.InstanceNumber = number + 1
        found.append(image)
    return found


def to_bytes(image: pydicom.Dataset) -> bytes:
    return heads.to_bytes(image)


def packed(images: list[pydicom.Dataset]) -> bytes:
    return heads.zipped({f"{number}.dcm": heads.to_bytes(image) for number, image in enumerate(images)})


def written(images: list[pydicom.Dataset], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.dcm" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(heads.to_bytes(image))
    return paths


def stored(images: list[pydicom.Dataset]) -> np.ndarray:
    """(planes, rows, columns) as the slices hold them."""
    return np.stack([image.pixel_array for image in images])


def mixed(folder: Path, step: float = 8.0) -> None:
    """A PACS's export: two people's T1 series and one's CT in one folder, under numbers that say nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    told = (("P1", 4, "MR"), ("P2", 4, "MR"), ("P3", 6, "CT"))
    images = [
        image
        for who, number, kind in told
        for image in instances(
            step, PatientID=who, SeriesNumber=number, Modality=kind, SeriesDescription="t1_mprage"
        )
    ]
    for place, image in enumerate(sorted(images, key=lambda image: image.SOPInstanceUID)):
        (folder / f"{place:05}").write_bytes(heads.to_bytes(image))
