"""What a result needs of its source: the person and the study as the file says them, and nothing private."""

import pydicom
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from scans.dicom.headers import Content
from scans.dicom.source import KEPT, LONGEST, attributes
from scans.origin import Source


def content(implicit=True, **elements):
    data = pydicom.Dataset()
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    data.private_block(0x0031, "PLANTED", create=True).add_new(1, "LO", "private")
    out = DicomBytesIO()
    out.is_implicit_VR, out.is_little_endian = implicit, True
    write_dataset(out, data)
    return Content(memoryview(out.getvalue()), implicit, True)


def test_each_element_is_listed_once():
    assert len(set(KEPT)) == len(KEPT)


def test_person_and_study_come_through():
    for implicit in (True, False):
        told = Source(
            attributes(
                content(
                    implicit,
                    SpecificCharacterSet="ISO_IR 192",
                    PatientName="王^小东",
                    PatientID="12",
                    StudyInstanceUID="1.2.3",
                    PixelSpacing=[1.5, 2],
                    NumberOfFrames=3,
                    InstitutionAddress="not needed",
                )
            ),
            (),
        ).dataset()
        assert str(told.PatientName) == "王^小东" and told.PatientID == "12"
        assert (
            told.StudyInstanceUID == "1.2.3" and list(told.PixelSpacing) == [1.5, 2] and told.NumberOfFrames == 3
        )
        assert "InstitutionAddress" not in told and all(not element.tag.is_private for element in told)


def test_what_is_too_long_stays_behind():
    long = content(PatientID="12", ImageType=["X" * 16] * (LONGEST // 16))
    assert set(attributes(long)) == {"00100020"}
