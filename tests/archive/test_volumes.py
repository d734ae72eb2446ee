"""Heat map and outlines lie where the scan lies: plane by plane in its frame of reference."""

import io
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from archive import volumes
from archive.results import results, to_bytes
from diagnosis.anatomy import segment
from scans.origin import Source
from scans.prepare import restore
from tests import heads
from tests.archive.conftest import AT
from tests.support import phantom


def read(made: pydicom.Dataset) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(to_bytes(made)))


@pytest.fixture(scope="module")
def heat(judged) -> pydicom.Dataset:
    return read(volumes.parametric_map(judged.diagnosis, judged.heat_map, AT))


def corners(made: pydicom.Dataset) -> np.ndarray:
    frames = made.PerFrameFunctionalGroupsSequence
    return np.array([frame.PlanePositionSequence[0].ImagePositionPatient for frame in frames], float)


def shared(made: pydicom.Dataset) -> pydicom.Dataset:
    return made.SharedFunctionalGroupsSequence[0]


def test_the_planes_of_the_map_are_the_sources(judged, heat):
    images = sorted(judged.images, key=lambda image: float(image.ImagePositionPatient[2]))
    assert heat.FrameOfReferenceUID == images[0].FrameOfReferenceUID
    assert (heat.Rows, heat.Columns, heat.NumberOfFrames) == (images[0].Rows, images[0].Columns, len(images))
    found = sorted(corners(heat).tolist(), key=lambda corner: corner[2])
    np.testing.assert_allclose(found, [image.ImagePositionPatient for image in images], atol=1e-3)
    way = shared(heat).PlaneOrientationSequence[0].ImageOrientationPatient
    np.testing.assert_allclose(np.array(way, float), images[0].ImageOrientationPatient, atol=1e-6)
    measures = shared(heat).PixelMeasuresSequence[0]
    np.testing.assert_allclose(np.array(measures.PixelSpacing, float), images[0].PixelSpacing)


def test_each_plane_of_the_map_names_the_image_below_it(judged, heat):
    at = {tuple(np.round(np.array(image.ImagePositionPatient, float), 3)): image for image in judged.images}
    for frame, corner in zip(heat.PerFrameFunctionalGroupsSequence, corners(heat), strict=True):
        named = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert named == at[tuple(np.round(corner, 3))].SOPInstanceUID


def test_the_values_of_the_map_come_back_by_its_scale(judged, heat):
    mapping = shared(heat).RealWorldValueMappingSequence[0]
    found = heat.pixel_array * mapping.RealWorldValueSlope + mapping.RealWorldValueIntercept
    wanted = restore(judged.heat_map.values, judged.diagnosis.prepared, judged.diagnosis.scan)
    order = np.argsort(corners(heat)[:, 2])  # as the scan's planes lie, from below upwards
    np.testing.assert_allclose(found[order], wanted.transpose(2, 1, 0), atol=np.ptp(wanted) / 65535)
    assert wanted.max() > 0
    assert heat.ContentQualification == "RESEARCH" and "research use only" in heat.ContentDescription


def test_a_scan_without_a_frame_of_reference_has_no_place_to_lay_a_map(judged):
    scan = judged.diagnosis.scan
    attributes = {tag: value for tag, value in scan.source.attributes.items() if tag != "00200052"}
    lost = replace(scan, source=Source(attributes, scan.source.instances))
    assert volumes.placed(judged.diagnosis)
    assert not volumes.placed(replace(judged.diagnosis, scan=lost))
    assert not volumes.placed(
        replace(judged.diagnosis, scan=replace(scan, facts=scan.facts | {"affine_known": False}))
    )


def test_the_outlines_lie_on_the_scan_and_have_sides(judged, outlined):
    diagnosis, found = outlined, outlined.segmentation
    made = read(volumes.outlines(diagnosis, AT))
    assert made.FrameOfReferenceUID == judged.images[0].FrameOfReferenceUID
    labels = {item.SegmentNumber: item for item in made.SegmentSequence}
    assert [item.SegmentLabel for item in labels.values()] == [
        "Third ventricle", "Hippocampus, left", "Hippocampus, right",
    ]  # fmt: skip
    wanted = segment.on_scan(found, diagnosis.prepared, diagnosis.scan)  # (columns, rows, planes)
    heights = {round(float(image.ImagePositionPatient[2]), 3): n for n, image in enumerate(judged.images)}
    laid = np.zeros((len(judged.images), made.Rows, made.Columns), int)
    for frame, corner, mask in zip(
        made.PerFrameFunctionalGroupsSequence, corners(made), made.pixel_array, strict=True
    ):
        number = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        laid[heights[round(float(corner[2]), 3)]][mask > 0] = {1: 14, 2: 17, 3: 53}[number]
    assert np.array_equal(laid, wanted.transpose(2, 1, 0))
    right = np.argwhere(laid == 53)[:, 2].mean()
    assert right < np.argwhere(laid == 17)[:, 2].mean()  # columns run to the patient's left
    kind = labels[2].SegmentedPropertyTypeCodeSequence[0]
    assert kind.CodeValue == "5366008"
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert "cd" * 32 in str(labels[2].SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters)


def test_a_file_of_many_frames_is_the_source_of_each_plane(diagnoser):
    frames = pydicom.dcmread(io.BytesIO(heads.dicom_frames(*phantom(4.0))))
    frames.FrameOfReferenceUID = "1.2.3"
    diagnosis = diagnoser(heads.to_bytes(frames), "frames.dcm", judge_anyway=True)
    heat = read(volumes.parametric_map(diagnosis, diagnoser.explain(diagnosis), AT))
    heights = [
        float(frame.PlanePositionSequence[0].ImagePositionPatient[2])
        for frame in frames.PerFrameFunctionalGroupsSequence
    ]
    for frame, corner in zip(heat.PerFrameFunctionalGroupsSequence, corners(heat), strict=True):
        named = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert named.ReferencedSOPInstanceUID == frames.SOPInstanceUID
        assert heights[named.ReferencedFrameNumber - 1] == pytest.approx(corner[2], abs=1e-3)
    assert set(results(diagnosis, None)) == {"report", "pdf", "picture"}
