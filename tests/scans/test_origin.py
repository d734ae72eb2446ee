"""The records beside the voxels cross to another process and back, and refuse what is none."""

import json

import pytest

from scans.origin import Acquisition, Instance, Series, Source

MADE = Acquisition("Siemens", "TrioTim", 3.0, "MPRAGE 3D GR/IR", "T1", 1.0, True)


def through_json(record):
    return json.loads(json.dumps(record))


@pytest.mark.parametrize(
    "record", [MADE, Acquisition(), Series("3-2", 176, 256, 240, "MR", MADE, ("contrast",), True, True, 2, 3)]
)
def test_records_come_back_as_they_were(record):
    assert type(record).of(through_json(record.record())) == record


def test_a_source_comes_back_and_shows_nothing():
    source = Source(
        {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Secret^A"}]}}, (Instance("1.2", 4, (1, 2, 3)),)
    )
    back = Source.of(through_json(source.record()))
    assert back.instances == source.instances and back.dataset().PatientName == "Secret^A"
    assert "Secret" not in repr(back)


def test_what_is_no_record_is_refused():
    with pytest.raises((KeyError, ValueError, TypeError)):
        Acquisition.of({**MADE.record(), "tesla": "strong"})
