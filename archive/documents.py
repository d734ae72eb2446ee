"""What a person looks at, as DICOM objects: the PDF report encapsulated, the pictures as a secondary capture."""

from datetime import datetime

import numpy as np
from highdicom.sc import SCImage
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from archive.base import MAKER, RESEARCH, device_of, finish, images, series, source_of
from diagnosis.diagnoser import Diagnosis
from diagnosis.maps.explain import Map
from reports.figures import picture, planes
from reports.pdf import pdf
from reports.wording import Texts
from studies import NOTICE

STRIP = 44  # pixels below the pictures, for the words
INK, WARNING = "#ffffff", "#ffb4a8"


def encapsulated_pdf(diagnosis: Diagnosis, heat_map: Map | None, language: str, at: datetime) -> Dataset:
    body = pdf(diagnosis, heat_map, language, at)
    body += b"\n" if len(body) % 2 else b""  # DICOM counts in pairs; a line's end after its mark belongs to a PDF
    device, made = device_of(diagnosis), Dataset()
    wanted = series("pdf", device)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = EncapsulatedPDFStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = wanted["sop_instance_uid"]
    made.SeriesInstanceUID, made.SeriesNumber = wanted["series_instance_uid"], wanted["series_number"]
    made.InstanceNumber, made.Modality, made.ConversionType = 1, "DOC", "WSD"
    made.Manufacturer, made.ManufacturerModelName = MAKER, device.model
    made.DeviceSerialNumber, made.SoftwareVersions = device.serial, device.version
    made.AcquisitionDateTime = ""
    made.BurnedInAnnotation = "NO"  # of a person's identity there is none in it
    made.DocumentTitle = f"{MAKER}: report ({RESEARCH})"
    made.ConceptNameCodeSequence = []
    made.MIMETypeOfEncapsulatedDocument = "application/pdf"
    made.EncapsulatedDocument, made.EncapsulatedDocumentLength = body, len(body)
    made.SourceInstanceSequence = [reference(image) for image in images(diagnosis)]
    return finish(made, "pdf", diagnosis, at)


def reference(image: Dataset) -> Dataset:
    made = Dataset()
    made.ReferencedSOPClassUID, made.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return made


def capture(diagnosis: Diagnosis, heat_map: Map | None, at: datetime) -> Dataset:
    """The planes with and without the map, and below them what the answer is and what it is not for."""
    drawn = with_words(picture(planes(diagnosis, heat_map)), diagnosis)
    wanted = series("picture", device_of(diagnosis))
    made = SCImage(
        pixel_array=np.asarray(drawn),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # of its cuts the first two; each bears its own letters
        study_instance_uid=str(source_of(diagnosis)[0].StudyInstanceUID),
        **wanted,
    )
    made["PatientOrientation"].value = None  # several planes lie in one picture, so there is none to tell
    made.BurnedInAnnotation = "NO"
    return finish(made, "picture", diagnosis, at)


def with_words(drawn: Image.Image, diagnosis: Diagnosis) -> Image.Image:
    canvas = Image.new("RGB", (drawn.width, drawn.height + STRIP))
    canvas.paste(drawn, (0, 0))
    label, chances = diagnosis.label, diagnosis.probabilities or {}
    said = f"{label} {100 * chances[label]:.0f} %" if label in chances else "no class"
    if diagnosis.value is not None:
        said = Texts("en").line(diagnosis).partition(";")[0]
    pen, letters = ImageDraw.Draw(canvas), ImageFont.load_default(15)
    words = f"{MAKER} {diagnosis.weights.study.key}: {said}; {diagnosis.verdict}"
    pen.text((8, drawn.height + 4), words, fill=INK, font=letters)
    pen.text((8, drawn.height + 23), NOTICE, fill=WARNING, font=letters)
    return canvas
