"""Phantom heads for tests: smooth shapes of known place and brightness, as NIfTI files and DICOM series."""

import zipfile
from io import BytesIO
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

MR, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
RTPLAN = "1.2.840.10008.5.1.4.1.1.481.5"

WHITE, FOLDS = 140, 30  # brightness of white matter, and how much it varies

# centre and half axes in mm (x to the right, y forward, z up), brightness, belongs to the brain
SHAPES = [
    ((0, 0, -90), (50, 55, 60), 90, False),  # neck
    ((0, 95, -45), (14, 16, 18), 110, False),  # nose
    ((0, 0, 0), (80, 97, 86), 150, False),  # scalp
    ((0, 0, 0), (74, 91, 80), 15, False),  # skull
    ((0, -2, 2), (67, 84, 70), 95, True),  # grey matter
    ((0, -18, -75), (15, 15, 40), 130, True),  # brain stem
    ((0, -2, 4), (56, 72, 58), WHITE, True),  # white matter
    ((14, 5, 8), (7, 28, 12), 25, True),  # ventricles
    ((-14, 5, 8), (7, 28, 12), 25, True),
    ((-40, 40, 15), (9, 9, 9), 190, True),  # a mark on the left, in front, above the middle
]
SOFT = 2.0  # mm over which one shape passes into another


def head(spacing=2.0, field=(196, 232, 240), stripped=False):
    """(voxels, affine): a head in RAS, brightness 0 to 190; `stripped` leaves the brain alone."""
    step = np.broadcast_to(np.asarray(spacing, float), 3)
    shape = np.round(np.array(field) / step).astype(int)
    affine = np.diag([*step, 1.0])
    affine[:3, 3] = -step * (shape - 1) / 2 - (0, 0, 20)
    x, y, z = (affine[a, a] * np.arange(shape[a]) + affine[a, 3] for a in range(3))
    points = x[:, None, None], y[None, :, None], z[None, None, :]
    points = [p.astype(np.float32) for p in points]
    folds = FOLDS * np.cos(points[0] * (2 * np.pi / 22)) * np.cos(points[1] * (2 * np.pi / 22))
    voxels = np.zeros(shape, np.float32)
    for centre, half, brightness, brain in SHAPES:
        if brain or not stripped:
            radius = np.sqrt(sum(((p - c) / h) ** 2 for p, c, h in zip(points, centre, half, strict=True)))
            inside = np.clip((1 - radius) * np.mean(half) / SOFT + 0.5, 0, 1)  # 1 inside, 0 outside
            voxels += inside * (brightness + (folds if brightness == WHITE else 0) - voxels)
    return voxels, affine


def reorder(voxels, affine, codes):
    """The same scan stored with its axes in another order, such as ("P", "S", "R")."""
    now = nibabel.io_orientation(affine)
    turn = nibabel.orientations.ornt_transform(now, nibabel.orientations.axcodes2ornt(codes))
    turned = nibabel.apply_orientation(voxels, turn)
    return turned, affine @ nibabel.orientations.inv_ornt_aff(turn, voxels.shape)


def save(path: Path, voxels, affine, **header) -> Path:
    """A NIfTI file; header fields such as pixdim may be overwritten by what would not be valid."""
    image = nibabel.Nifti1Image(voxels, affine)
    for field, value in header.items():
        image.header[field] = value
    nibabel.save(image, path)
    return path


def dicom_slices(voxels, affine, number=1, manufacturer="Phantom", sop=MR) -> list[bytes]:
    """One axial DICOM file a slice of a RAS scan with axes along the world's."""
    nx, ny, nz = voxels.shape
    step = np.diag(affine)[:3]
    corner = affine @ [nx - 1, ny - 1, 0, 1]  # the right-most, front-most voxel is the first pixel
    series, study = generate_uid(), generate_uid()
    files = []
    for k in range(nz):
        data = dataset(sop, series, study, number)
        data.Manufacturer, data.InstanceNumber = manufacturer, k + 1
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient = [-corner[0], -corner[1], corner[2] + k * step[2]]
        data.PixelSpacing, data.SliceThickness = [step[1], step[0]], step[2]
        pixels(data, voxels[::-1, ::-1, k].T)
        files.append(to_bytes(data))
    return files


def dicom_frames(voxels, affine, time=1) -> bytes:
    """The same as one enhanced multi-frame file; `time` is what each frame calls its place in the series."""
    data = dataset(ENHANCED_MR, generate_uid(), generate_uid(), 1)
    data.Manufacturer = "Phantom"
    nx, ny, nz = voxels.shape
    step, corner = np.diag(affine)[:3], affine @ [nx - 1, ny - 1, 0, 1]
    frames = []
    for k in range(nz):
        content, place, plane, measure, frame = (pydicom.Dataset() for _ in range(5))
        content.InStackPositionNumber, content.TemporalPositionIndex, content.StackID = k + 1, time, "1"
        content.DimensionIndexValues = [1, k + 1, time]
        place.ImagePositionPatient = [-corner[0], -corner[1], corner[2] + k * step[2]]
        plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        measure.PixelSpacing, measure.SliceThickness = [step[1], step[0]], step[2]
        frame.FrameContentSequence, frame.PlanePositionSequence = Sequence([content]), Sequence([place])
        frame.PlaneOrientationSequence, frame.PixelMeasuresSequence = Sequence([plane]), Sequence([measure])
        frames.append(frame)
    data.PerFrameFunctionalGroupsSequence = Sequence(frames)
    data.NumberOfFrames = nz
    pixels(data, voxels[::-1, ::-1].transpose(2, 1, 0))
    return to_bytes(data)


def dataset(sop, series, study, number) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = sop, meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.StudyInstanceUID, data.SeriesNumber = series, study, number
    data.Modality = "RTPLAN" if sop == RTPLAN else "MR"
    data.RepetitionTime, data.EchoTime = 2000, 3
    data.PatientName, data.PatientID = "Phantom^Secret", "SECRET-1"
    return data


def pixels(data, array) -> None:
    data.Rows, data.Columns = array.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.PixelData = np.ascontiguousarray(array, dtype="<u2").tobytes()


def to_bytes(data) -> bytes:
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()
