"""The patient, study, series and frame of reference of one image, for results that go back as DICOM.

Private elements, pixels and whatever is not listed stay behind; what cannot be decoded is left out.
"""

from typing import Any, BinaryIO, cast

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.filereader import read_dataset

from scans.dicom.headers import LAID, ODD_HEADERS, Content

LONGEST = 1 << 16  # characters of one element in JSON
KEPT = [
    cast(int, tag_for_keyword(keyword))
    for keyword in (
        # patient
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "OtherPatientIDs",
        "PatientBirthDate",
        "PatientBirthTime",
        "PatientSex",
        "PatientAge",
        "PatientSize",
        "PatientWeight",
        "PatientIdentityRemoved",
        "DeidentificationMethod",
        "ClinicalTrialSponsorName",
        "ClinicalTrialProtocolID",
        "ClinicalTrialProtocolName",
        "ClinicalTrialSiteID",
        "ClinicalTrialSiteName",
        "ClinicalTrialSubjectID",
        "ClinicalTrialTimePointID",
        # study
        "StudyInstanceUID",
        "StudyDate",
        "StudyTime",
        "StudyID",
        "StudyDescription",
        "AccessionNumber",
        "ReferringPhysicianName",
        "TimezoneOffsetFromUTC",
        # series and frame of reference
        "Modality",
        "SeriesInstanceUID",
        "SeriesNumber",
        "SeriesDate",
        "SeriesTime",
        "SeriesDescription",
        "BodyPartExamined",
        "PatientPosition",
        "Laterality",
        "FrameOfReferenceUID",
        "PositionReferenceIndicator",
        # equipment
        "Manufacturer",
        "ManufacturerModelName",
        "InstitutionName",
        "StationName",
        # image
        *LAID,
        "SpecificCharacterSet",
        "SOPClassUID",
        "SOPInstanceUID",
        "InstanceNumber",
        "ImageType",
        "AcquisitionDate",
        "AcquisitionTime",
        "AcquisitionDateTime",
        "ContentDate",
        "ContentTime",
        "SharedFunctionalGroupsSequence",
    )
]


def attributes(content: Content) -> dict[str, Any]:
    """What of one file's data set a result needs, in DICOM's JSON model."""
    header: Dataset = read_dataset(
        cast(BinaryIO, content.stream()),
        content.implicit,
        content.little,
        stop_when=lambda tag, vr, length: int(tag) >= 0x7FE00008,
        specific_tags=list(KEPT),
    )
    found: dict[str, Any] = {}
    for tag in KEPT:
        try:
            if tag in header:
                element = header[tag].to_json_dict(None, LONGEST)
                if len(str(element)) <= LONGEST:
                    found[f"{tag:08X}"] = element
        except ODD_HEADERS:  # one element that says nothing; the others do
            continue
    return found
