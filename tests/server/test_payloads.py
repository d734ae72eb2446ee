"""What a browser gets of a diagnosis: the header and the voxels of its binaries, sides and all."""

import gzip
import json
import struct
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from diagnosis.anatomy.segment import SHAPE
from networks.segmenter import CLASSES
from server import payloads
from tests.support import segmentation_of


def unpacked(body: bytes) -> tuple[dict, np.ndarray]:
    data = gzip.decompress(body)
    (length,) = struct.unpack("<I", data[:4])
    header = json.loads(data[4 : 4 + length])
    return header, np.frombuffer(data[4 + length :], np.uint8).reshape(header["shape"])


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("text/html,application/xml;q=0.9,*/*;q=0.8", "html"),
        ("application/pdf", "pdf"),
        ("image/png, application/pdf; q=0.5", "pdf"),
        ("image/png", "json"),
        ("application/dicom", "dicom"),
        ('multipart/related; type="application/dicom"', "dicom"),
        ("application/zip", "dicom.zip"),
    ],
)
def test_the_first_kind_that_is_known_is_what_is_wanted(accept, kind):
    assert payloads.wanted(accept) == kind


def test_the_volume_has_the_right_half_brighter(diagnosis):
    header, seen = unpacked(payloads.volume(diagnosis))
    assert header["shape"] == [166, 256, 256] and header["spacing"] == [1.2, 1.0, 1.0] and header["oriented"]
    assert seen[120, 127, 140] == 255 and 100 < seen[40, 127, 140] < 200 and seen[0, 0, 0] == 0


def test_the_map_has_its_highest_value_where_it_was_put(diagnosis, found):
    header, seen = unpacked(payloads.heat(diagnosis, found))
    assert (header["method"], header["code"]) == ("relevance", "AD")
    assert np.unravel_index(seen.argmax(), seen.shape) == (110, 120, 120) and seen.max() == 255
    assert sum(share for _, share, _ in header["regions"]) == pytest.approx(1, abs=0.02)
    assert all(shown.endswith(" %") for _, _, shown in header["regions"])


def test_the_map_as_nifti_lies_on_the_scan_and_says_what_it_is(diagnosis, found):
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(payloads.heat_nifti(diagnosis, found)))
    assert image.affine == pytest.approx(diagnosis.scan.affine)
    assert np.abs(np.asarray(image.dataobj) - found.values).max() < 1e-5
    assert bytes(image.header["descrip"]).rstrip(b"\0") == b"Scanwise relevance AD; research use only"


def test_outlines_are_the_part_of_the_grid_that_holds_any(diagnosis):
    """A left hippocampus, 3 × 4 × 5 voxels at (30, 90, 60) of the box, which begins at (11, 20, 40)."""
    classes = np.zeros(SHAPE, np.uint8)
    classes[30:33, 90:94, 60:65] = CLASSES.index("hippocampus")
    header, seen = unpacked(payloads.outlines(replace(diagnosis, segmentation=segmentation_of(classes))))
    assert (header["start"], header["shape"]) == ([41, 110, 100], [3, 4, 5]) and (seen == 17).all()
    structures = {each["name"]: each["numbers"] for each in header["structures"]}
    assert structures["hippocampus"] == [17, 53] and structures["third"] == [14]
    assert set(structures) == set(CLASSES) - {"background"}


def test_outlines_lie_on_the_volume_however_the_grid_is_turned(diagnosis):
    """A grid whose axes run left, back, up is shown mirrored in two axes."""
    classes = np.zeros(SHAPE, np.uint8)
    classes[30:33, 90:94, 60:65] = CLASSES.index("hippocampus")
    turned = replace(diagnosis.prepared, affine=np.diag([-1.2, -1, 1, 1]))
    asked = replace(diagnosis, prepared=turned, segmentation=segmentation_of(classes))
    header, _ = unpacked(payloads.outlines(asked))
    assert header["start"] == [166 - 44, 256 - 114, 100] and header["shape"] == [3, 4, 5]


def test_where_nothing_was_outlined_there_is_nothing_to_send(diagnosis):
    with pytest.raises(ValueError, match="nothing was outlined"):
        payloads.outlines(diagnosis)
    header, seen = unpacked(
        payloads.outlines(replace(diagnosis, segmentation=segmentation_of(np.zeros(SHAPE, np.uint8))))
    )
    assert header["shape"] == [1, 1, 1] and not seen.any()
