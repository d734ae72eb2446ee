"""One file taken apart: what is kept of its header, and what is counted of it."""

import numpy as np
import pydicom
import pytest

from scans.dicom import headers
from scans.scan import ScanError
from tests.heads import MR, dataset, pixels, to_bytes


def picture():
    data = dataset(MR, "1.2.3", "1.2.4", 1)
    pixels(data, np.add.outer(np.arange(30), np.arange(40)))
    return data


def test_only_what_is_named_is_kept():
    data = picture()
    data.InstitutionName, data.SeriesDescription = "Somewhere", "t1"
    file = headers.Reading("a.dcm", 1 << 30).parse(to_bytes(data))
    assert file.header.SeriesDescription == "t1" and "InstitutionName" not in file.header
    assert (file.pixels.rows, file.pixels.columns) == (30, 40)


@pytest.mark.parametrize("junk", [b"", b"hello", bytes(200), b"DICM" + bytes(300)])
def test_what_is_no_dicom_is_none(junk):
    assert headers.Reading("a.dcm", 1 << 30).parse(junk) is None


def test_elements_are_counted(monkeypatch):
    monkeypatch.setattr(headers, "MAX_ELEMENTS", 5)
    with pytest.raises(ScanError, match="more than 5 data elements"):
        headers.Reading("a.dcm", 1 << 30).parse(to_bytes(picture()))


def test_a_sequence_counts_by_its_length_though_it_is_parsed_later():
    """Each 16 bytes of it as one read: a data element of a nested header has at least 8, and takes two."""

    def counted(items):
        data = picture()
        item = pydicom.Dataset()
        item.LUTDescriptor, item.LUTData = [200, 0, 16], bytes(400)
        data.VOILUTSequence = pydicom.Sequence([item] * items)
        whole, reading = to_bytes(data), headers.Reading("a.dcm", 1 << 30)
        before = reading.reads
        assert reading.parse(whole).pixels is not None
        return before - reading.reads, len(whole)

    (few, short), (many, long) = counted(10), counted(110)
    assert many - few == pytest.approx((long - short) / 16, abs=1)
