"""The listening side, by pynetdicom's own requester: who may send, what is kept, what is told otherwise."""

import io
import threading

import pydicom
import pytest
from pynetdicom import AE

from archive.node.incoming import Incoming
from archive.node.receive import CLASSES, Receiver
from archive.node.send import VERIFICATION, Peer, steadied
from tests import dicom_study
from tests.support import until

# pynetdicom leaves it to the garbage collector to close the socket of a connection that failed
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
MR = "1.2.840.10008.5.1.4.1.1.4"
OURS = ("1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.104.1", "1.2.840.10008.5.1.4.1.1.7")


@pytest.fixture(scope="module")
def images() -> list[pydicom.Dataset]:
    return dicom_study.instances(20.0)


class Listening:
    def __init__(self, folder, peers, largest=1 << 20):
        self.counts, self.full = [], None
        self.incoming = Incoming(folder, 1 << 24, 5.0)
        self.receiver = Receiver(
            "SCANWISE", ("127.0.0.1", 0), peers, self.incoming, lambda: self.full, largest, self.counts.append
        )

    def call(self, title="ARCHIVE", called="SCANWISE", sop=MR):
        caller = AE(title)
        caller.add_requested_context(sop)
        caller.add_requested_context(VERIFICATION)
        return steadied(caller.associate("127.0.0.1", self.receiver.port, ae_title=called))


@pytest.fixture
def listening(tmp_path, request):
    started = Listening(tmp_path / "incoming", *getattr(request, "param", ([Peer("ARCHIVE")],)))
    yield started
    started.receiver.close()


def test_what_a_known_caller_sends_is_kept_as_it_came(listening, images):
    calling = listening.call()
    assert calling.send_c_echo().Status == 0
    assert [calling.send_c_store(image).Status for image in images[:3]] == [0, 0, 0]
    assert calling.send_c_store(images[0]).Status == 0  # a duplicate
    calling.release()
    (study,) = listening.incoming.studies.values()
    until(lambda: not study.senders, 30, "the release to be heard")
    kept = {pydicom.dcmread(file).SOPInstanceUID: pydicom.dcmread(file) for file in study.files}
    assert set(kept) == {image.SOPInstanceUID for image in images[:3]} and not study.broken
    for image in images[:3]:
        assert kept[image.SOPInstanceUID].PixelData == image.PixelData
    assert listening.counts == ["kept"] * 4


def test_strangers_and_wrong_titles_are_rejected(listening):
    assert listening.call("STRANGER").is_rejected and listening.call(called="OTHER").is_rejected
    until(lambda: listening.counts == ["unknown caller"] * 2, 30, "both to be counted")


@pytest.mark.parametrize("listening", [([Peer("ARCHIVE", "192.0.2.9")],)], indirect=True)
def test_a_known_title_from_another_address_is_a_stranger(listening):
    assert not listening.call().is_established and "unknown caller" in listening.counts


@pytest.mark.parametrize(
    "listening", [([Peer("ARCHIVE", "192.0.2.9"), Peer("ARCHIVE", "127.0.0.1")],)], indirect=True
)
def test_a_title_may_call_from_any_of_its_addresses(listening):
    calling = listening.call()
    assert calling.is_established
    calling.release()


@pytest.mark.parametrize("listening", [(None,)], indirect=True)
def test_everybody_may_call_where_that_was_asked_for(listening):
    calling = listening.call("STRANGER")
    assert calling.is_established
    calling.release()


@pytest.mark.parametrize("sop", OURS)
def test_results_like_our_own_are_not_taken_in(listening, sop):
    assert sop not in CLASSES
    calling = listening.call(sop=sop)
    assert [str(context.abstract_syntax) for context in calling.accepted_contexts] == [VERIFICATION]
    calling.release()


def test_a_full_box_and_a_full_disk_are_told_by_their_status(listening, images):
    listening.full = "results wait for the archive"
    calling = listening.call()
    assert calling.send_c_store(images[0]).Status == 0xA700
    listening.full, listening.incoming.limit = None, 10
    assert calling.send_c_store(images[0]).Status == 0xA700
    listening.incoming.limit = 1 << 24
    assert calling.send_c_store(images[0]).Status == 0
    calling.release()
    assert listening.counts == ["no room", "no room", "kept"]


def test_an_instance_without_a_study_is_not_understood(listening, images):
    stray = pydicom.dcmread(io.BytesIO(dicom_study.to_bytes(images[0])))
    del stray.StudyInstanceUID
    calling = listening.call()
    assert calling.send_c_store(stray).Status == 0xC000
    calling.release()
    assert listening.incoming.studies == {} and listening.counts == ["not understood"]


def test_a_sender_that_breaks_off_leaves_a_study_that_is_not_whole(listening, images):
    calling = listening.call()
    calling.send_c_store(images[0])
    calling.abort()
    (study,) = listening.incoming.studies.values()

    def noticed() -> bool:
        listening.receiver.look()
        return study.broken

    until(noticed, 30, "the break to be noticed")
    assert not study.senders


@pytest.mark.parametrize("listening", [([Peer("ARCHIVE")], -(1 << 20) + 4000)], indirect=True)
def test_an_instance_beyond_all_bounds_ends_its_association(listening, images):
    large = pydicom.dcmread(io.BytesIO(dicom_study.to_bytes(images[0])))
    large.Rows = large.Columns = 512
    large.PixelData = bytes(2 * 512 * 512)
    calling = listening.call()
    calling.send_c_store(large)
    until(lambda: not calling.is_established, 30, "the association to end")
    assert listening.incoming.studies == {} and "kept" not in listening.counts


def test_two_callers_bring_one_study_together(listening, images):
    def bring(some):
        calling = listening.call()
        for image in some:
            assert calling.send_c_store(image).Status == 0
        calling.release()

    callers = [threading.Thread(target=bring, args=(images[start::2],)) for start in (0, 1)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    (study,) = listening.incoming.studies.values()
    assert len(study.sizes) == len(images)
