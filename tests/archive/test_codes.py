"""Codes: DICOM's own tables for structures, one of ours for each class; all short enough for their fields."""

import pytest
from pydicom.sr.codedict import codes as dictionary

from archive import codes
from diagnosis.anatomy.measures import MEASURES
from networks.segmenter import CLASSES
from studies import STUDIES


@pytest.mark.parametrize("key", STUDIES)
def test_every_class_has_a_code_of_its_own(key):
    study = STUDIES[key]
    found = [codes.class_code(study, code) for code in study.codes]
    found += [codes.probability_code(study, code) for code in study.codes]
    assert len({one.value for one in found}) == 2 * len(study.codes)
    assert all(one.scheme_designator == "99SCANWISE" and len(one.meaning) <= 64 for one in found)


def test_every_structure_that_can_be_outlined_has_its_code():
    assert set(codes.STRUCTURES) == set(CLASSES) - {"background"}
    volumetric = {getattr(dictionary.cid7140, name) for name in dictionary.cid7140.dir()}
    known = {what for name, (what, _) in codes.STRUCTURES.items() if name != "fluid"}
    assert known <= volumetric


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_has_a_unit_and_a_place(name):
    measure = MEASURES[name]
    site, side = codes.site_of(name)
    assert measure.unit in codes.UNITS and site is not None
    assert (side is None) == (not name.endswith(("left", "right")))
    assert len(codes.measure_code(name, measure.title).meaning) <= 64


def test_the_places_of_some_measures():
    assert codes.site_of("hippocampus_left") == (dictionary.SCT.Hippocampus, dictionary.SCT.Left)
    assert codes.site_of("inferior_horns_share")[0].value == "53118009"
    assert codes.site_of("third")[0].value == "49841001"
    assert codes.site_of("something else") == (None, None)
