"""What every object for an archive says alike: whose study it belongs to, what made it, that it is for research.

The identity of the source goes into the objects here and nowhere else: highdicom, which checks names and warns
with them, is given empty ones.
"""

import hashlib
import warnings
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydicom import DataElement, Dataset, config
from pydicom.datadict import dictionary_VR
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from diagnosis.diagnoser import VERSION, Diagnosis
from scans.origin import Instance, Source
from scans.scan import ScanError

MAKER, RESEARCH = "Scanwise", "research use only"
# What is copied from the source; those that must stand there, if empty, come first.
NEEDED = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate",
          "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber")  # fmt: skip
ALSO = ("IssuerOfPatientID", "PatientAge", "PatientSize", "PatientWeight", "StudyDescription",
        "TimezoneOffsetFromUTC")  # fmt: skip
IDENTIFIED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID")
TEXTS = ("AS", "CS", "DA", "LO", "PN", "SH", "TM", "UI")
# What a series shows of the body: nothing; a part, which may have a side; structures, each with a side of its own.
NO_BODY_PART, BODY_PART, SIDED_STRUCTURES = "nothing", "body part", "sided structures"
# kind → the number of its series, what the series is called and shows
SERIES = {
    "report": (9001, "structured report", NO_BODY_PART),
    "pdf": (9002, "report as PDF", NO_BODY_PART),
    "picture": (9003, "pictures", BODY_PART),
    "map": (9004, "heat map", BODY_PART),
    "outlines": (9005, "outlines", SIDED_STRUCTURES),
}


@dataclass(frozen=True)
class Device:
    """The network as a device: what SR and enhanced objects must name."""

    uid: str
    model: str
    serial: str  # the hash of the weights file: other weights are another device
    version: str = VERSION


def device_of(diagnosis: Diagnosis) -> Device:
    sha256 = diagnosis.weights.sha256
    number = int.from_bytes(hashlib.sha256(f"scanwise {sha256}".encode()).digest()[:16], "big")
    return Device(UID(f"2.25.{number}"), f"{MAKER} {diagnosis.weights.study.key}"[:64], sha256)


def source_of(diagnosis: Diagnosis) -> tuple[Dataset, tuple[Instance, ...]]:
    """One header of the series that was judged, and its images.

    ScanError where the scan came without a study to add results to.
    """
    source = diagnosis.scan.source
    header = Dataset() if source is None else read(source)
    if source is None or not all(header.get(keyword) for keyword in IDENTIFIED):
        form = "no DICOM file" if source is None else "a DICOM file that names no study, series or kind"
        raise ScanError(
            "no-study",
            f"{diagnosis.file}: {form}, and only to a DICOM study can DICOM results be added; "
            "give the series as the scanner or the archive has it",
        )
    return header, source.instances


def read(source: Source) -> Dataset:
    """The source's header, or an empty one where it makes no sense."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote values
        try:
            return source.dataset()
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            return Dataset()


def images(diagnosis: Diagnosis) -> list[Dataset]:
    """The source's images as highdicom asks for them: places and numbers, no identity, no pixels."""
    header, instances = source_of(diagnosis)
    found: list[Dataset] = []
    for uid, instance in {one.uid: one for one in reversed(instances)}.items():  # of a file's frames the first
        image = Dataset()
        for keyword in NEEDED:
            setattr(image, keyword, str(header.get(keyword)) if dictionary_VR(keyword) == "UI" else None)
        image.SOPClassUID, image.SOPInstanceUID = str(header.SOPClassUID), uid
        image.SeriesInstanceUID = str(header.SeriesInstanceUID)
        image.Modality, image.InstanceNumber = str(header.get("Modality", "OT")), len(found) + 1
        image.Rows, image.Columns = diagnosis.scan.voxels.shape[:2]
        if diagnosis.scan.kind == "volume":
            image.Columns, image.Rows = diagnosis.scan.voxels.shape[:2]
            image.FrameOfReferenceUID = str(header.get("FrameOfReferenceUID", ""))
            image.ImagePositionPatient = [round(number, 6) for number in instance.position]
        found.append(image)
    return found


def series(kind: str, device: Device) -> dict[str, Any]:
    """The arguments of highdicom's classes that say which series and which device."""
    return {
        "series_instance_uid": generate_uid(prefix=None),
        "series_number": SERIES[kind][0],
        "sop_instance_uid": generate_uid(prefix=None),
        "instance_number": 1,
        "manufacturer": MAKER,
        "manufacturer_model_name": device.model,
        "software_versions": device.version,
        "device_serial_number": device.serial,
        "transfer_syntax_uid": ExplicitVRLittleEndian,
    }


def finish(made: Dataset, kind: str, diagnosis: Diagnosis, at: datetime) -> Dataset:
    """The object with the source's patient and study in it, and with the words that every one of them carries."""
    header, _ = source_of(diagnosis)
    made.SpecificCharacterSet = "ISO_IR 192"  # UTF-8, whatever the source was written in
    for keyword in (*NEEDED, *ALSO):
        value = header.get(keyword)
        if keyword in NEEDED or value not in (None, ""):
            copy(made, keyword, value)
    if "FrameOfReferenceUID" in made and header.get("PositionReferenceIndicator"):
        made.PositionReferenceIndicator = str(header.PositionReferenceIndicator)
    _, title, shown = SERIES[kind]
    part, side = header.get("BodyPartExamined"), header.get("Laterality")
    if shown != NO_BODY_PART and part:
        copy(made, "BodyPartExamined", part)
    if shown == BODY_PART and (side or not part):  # of an unknown part nobody knows whether it has a side
        copy(made, "Laterality", side)
    made.SeriesDescription = f"{MAKER}: {title} ({RESEARCH})"
    for event in ("Series", "Content", "InstanceCreation"):
        setattr(made, f"{event}Date", at.strftime("%Y%m%d"))
        setattr(made, f"{event}Time", at.strftime("%H%M%S"))
    return made


def copy(made: Dataset, keyword: str, value: Any) -> None:
    """A value as the source has it, valid or not: by it the archive knows the patient and the study."""
    vr = dictionary_VR(keyword)
    value = "" if value is None else str(value) if vr in TEXTS else value  # PN would keep the source's encoding
    made[keyword] = DataElement(keyword, vr, value, validation_mode=config.IGNORE)
