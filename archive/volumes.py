"""What lies in space, as DICOM objects in the scan's frame of reference: the heat map, and the outlines.

Both stand on the scan's own voxels, plane by plane, so that a viewer lays them over the series without resampling.
"""

from datetime import datetime
from typing import Any

import highdicom
import numpy as np
from highdicom.pm import ParametricMap, RealWorldValueMapping
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentDescription
from highdicom.utils import is_multiframe_image
from pydicom import Dataset
from pydicom.sr.codedict import codes

from archive import codes as concepts
from archive.base import MAKER, RESEARCH, device_of, finish, images, series, source_of
from diagnosis.anatomy import segment
from diagnosis.diagnoser import VERSION, Diagnosis
from diagnosis.maps.explain import Map
from scans.prepare import restore

MOST = 65535  # of an unsigned 16-bit number
ELSEWHERE = (1e6, 1e6, 1e6)  # mm: where frames lie that are no plane of the scan, under nothing
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
FAMILY = codes.DCM.ArtificialIntelligence


def placed(diagnosis: Diagnosis) -> bool:
    """Whether the scan is a volume whose header says in which frame of reference it lies."""
    known = diagnosis.scan.kind == "volume" and diagnosis.scan.facts.get("affine_known", False)
    return bool(known and str(source_of(diagnosis)[0].get("FrameOfReferenceUID", "")))


def geometry(diagnosis: Diagnosis) -> dict[str, Any]:
    """Where each plane lies, its way and its steps, as the multi-frame classes take them."""
    affine = diagnosis.scan.affine
    across, down, up = (RAS_TO_LPS @ affine[:3, axis] for axis in range(3))
    corner = RAS_TO_LPS @ affine[:3, 3]
    steps = [float(np.linalg.norm(way)) for way in (across, down, up)]
    ways = [*(across / steps[0]), *(down / steps[1])]
    places = [corner + number * up for number in range(diagnosis.scan.voxels.shape[2])]
    return {
        "pixel_measures": highdicom.PixelMeasuresSequence(
            pixel_spacing=(round(steps[1], 6), round(steps[0], 6)),
            slice_thickness=round(steps[2], 6),
            spacing_between_slices=round(steps[2], 6),
        ),
        "plane_orientation": highdicom.PlaneOrientationSequence("PATIENT", [round(float(n), 8) for n in ways]),
        "plane_positions": [
            highdicom.PlanePositionSequence("PATIENT", [round(float(n), 6) for n in place]) for place in places
        ],
    }


def sources(diagnosis: Diagnosis, laid: dict[str, Any]) -> dict[str, Any]:
    """The source's images with the steps and the way by which highdicom finds what lies on what.

    It takes many files of one image each, or one file of many; of several such files the others are only named.
    """
    evidence, (_, instances) = images(diagnosis), source_of(diagnosis)
    measures, way = laid["pixel_measures"][0], laid["plane_orientation"][0]
    for image in evidence:
        if is_multiframe_image(image):
            here = {one.frame: one.position for one in instances if one.uid == image.SOPInstanceUID}
            image.NumberOfFrames = max(here) + 1
            shared = Dataset()
            shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [way]
            image.SharedFunctionalGroupsSequence = [shared]
            image.PerFrameFunctionalGroupsSequence = [
                frame_at(here.get(number, ELSEWHERE)) for number in range(image.NumberOfFrames)
            ]
        else:
            image.PixelSpacing, image.SliceThickness = measures.PixelSpacing, measures.SliceThickness
            image.ImageOrientationPatient = way.ImageOrientationPatient
    first = evidence[:1] if is_multiframe_image(evidence[0]) else evidence
    return {"source_images": first, "further_source_images": evidence[len(first) :]}


def frame_at(position: tuple[float, float, float]) -> Dataset:
    frame = Dataset()
    frame.PlanePositionSequence = highdicom.PlanePositionSequence("PATIENT", [round(n, 6) for n in position])
    return frame


def parametric_map(diagnosis: Diagnosis, heat_map: Map, at: datetime) -> Dataset:
    """The heat map's own values, positive where they speak for the class, as 16-bit numbers with their scale."""
    values = restore(heat_map.values, diagnosis.prepared, diagnosis.scan)  # (columns, rows, planes)
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    slope = max(high - low, 1e-12) / MOST
    stored = np.rint((values.T - low) / slope).clip(0, MOST).astype(np.uint16)  # (planes, rows, columns)
    zero = round(-low / slope)
    laid = geometry(diagnosis)
    made = ParametricMap(
        **sources(diagnosis, laid),
        pixel_array=np.ascontiguousarray(stored),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            RealWorldValueMapping(
                lut_label=heat_map.method[:16],
                lut_explanation=f"{heat_map.method} of {heat_map.code}; {RESEARCH}"[:64],
                unit=concepts.UNITS["1"],
                value_range=(0, MOST),
                slope=slope,
                intercept=low,
                quantity_definition=concepts.ATTRIBUTION,
            )
        ],
        # no attribution is black, the strongest for the class white
        voi_lut_transformations=[
            highdicom.VOILUTTransformation(window_center=(zero + MOST) / 2, window_width=max(MOST - zero, 1))
        ],
        content_label="HEATMAP",
        content_description=f"{heat_map.method} of {heat_map.code}; {RESEARCH}"[:64],
        coding_schemes=[concepts.scheme()],
        **laid,
        **series("map", device_of(diagnosis)),
    )
    return finish(made, "map", diagnosis, at)


def outlines(diagnosis: Diagnosis, at: datetime) -> Dataset:
    """Each structure that was found, left and right apart, as a binary segment."""
    found, by = diagnosis.segmentation, diagnosis.segmenter
    assert found is not None, "asked for where something was outlined"
    labels = segment.on_scan(found, diagnosis.prepared, diagnosis.scan).T  # (planes, rows, columns)
    there = {int(number) for number in np.unique(labels)} - {0}
    known = [
        (number, name, side)
        for name, numbers in segment.NUMBERS.items()
        for side, number in zip(("left", "right") if len(numbers) == 2 else ("",), numbers, strict=True)
        if number in there
    ]
    order = np.zeros(256, np.uint8)
    for place, (number, _, _) in enumerate(known, 1):
        order[number] = place
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=f"{MAKER} segmenter",
        version=VERSION,
        family=FAMILY,
        parameters={"weights": by.name, "sha256": by.sha256} if by is not None else None,
    )
    laid = geometry(diagnosis)
    made = Segmentation(
        **sources(diagnosis, laid),
        pixel_array=np.ascontiguousarray(order[labels]),
        segmentation_type="BINARY",
        segment_descriptions=[
            described(place, name, side, algorithm) for place, (_, name, side) in enumerate(known, 1)
        ],
        content_label="OUTLINES",
        content_description=f"Structures of the head; {RESEARCH}",
        **laid,
        **series("outlines", device_of(diagnosis)),
    )
    made.ContentQualification = "RESEARCH"
    return finish(made, "outlines", diagnosis, at)


def described(number: int, name: str, side: str, algorithm: Any) -> SegmentDescription:
    what, category = concepts.STRUCTURES[name]
    made = SegmentDescription(
        segment_number=number,
        segment_label=f"{what.meaning}, {side}" if side else what.meaning,
        segmented_property_category=category,
        segmented_property_type=what,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
    )
    if side:
        modifier = Dataset()
        code = concepts.SIDES[side]
        modifier.CodeValue, modifier.CodingSchemeDesignator = code.value, code.scheme_designator
        modifier.CodeMeaning = code.meaning
        made.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [modifier]
    return made
