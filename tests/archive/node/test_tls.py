"""Lines that are secured on both sides: who gets through, and who keeps nobody else waiting."""

import gc
import socket
import subprocess

import pydicom
import pytest

from archive.node.incoming import Incoming
from archive.node.outbox import Away
from archive.node.receive import Receiver
from archive.node.send import ByStore, Peer
from archive.node.tls import Certificates
from tests import dicom_study, orthanc
from tests.certificates import authority, certificate
from tests.support import until

# pynetdicom leaves it to the garbage collector to close the socket of a connection that failed
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """What the node and those it knows have; all of one authority."""
    signer = authority(tmp_path_factory.mktemp("known"))
    return {name: Certificates(*certificate(signer, name), signer) for name in ("node", "archive")}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return dicom_study.written(dicom_study.instances(20.0)[:2], tmp_path_factory.mktemp("study"))


@pytest.fixture(autouse=True)
def closed():
    """Sockets of lines that failed are collected here, where their warnings are expected."""
    yield
    gc.collect()


@pytest.fixture
def receiver(tmp_path, known):
    incoming = Incoming(tmp_path / "incoming", 1 << 24, 5.0)
    started = Receiver("SCANWISE", ("127.0.0.1", 0), None, incoming, lambda: None, 1 << 20, tls=known["node"])
    yield started
    started.close()


def sent(receiver: Receiver, files, tls: Certificates | None, host: str = "127.0.0.1") -> int:
    accepted: list = []
    ByStore("ARCHIVE", Peer("SCANWISE", host, receiver.port), tls)(files, accepted.append)
    return len(accepted)


def test_whoever_has_a_certificate_of_the_authority_gets_through(receiver, known, files):
    assert sent(receiver, files, known["archive"]) == 2
    (study,) = receiver.incoming.studies.values()
    until(lambda: not study.senders, 30, "the release to be heard")
    assert {pydicom.dcmread(file).SOPInstanceUID for file in study.files} == {
        pydicom.dcmread(file).SOPInstanceUID for file in files
    }


def test_others_do_not(receiver, known, files, tmp_path):
    stranger = authority(tmp_path / "stranger")
    own = certificate(stranger, "stranger")
    trusting = Certificates(*own, known["node"].authority)  # knows the node, which does not know it
    wary = Certificates(known["archive"].certificate, known["archive"].key, stranger)  # does not know the node
    for tls in (None, trusting, wary):
        with pytest.raises(Away):
            sent(receiver, files, tls)
    with pytest.raises(Away):  # the certificate is of another name
        sent(receiver, files, known["archive"], "localhost")
    assert not receiver.incoming.studies


def test_a_caller_who_says_nothing_keeps_nobody_waiting(receiver, known, files):
    with socket.create_connection(("127.0.0.1", receiver.port), 60):
        assert sent(receiver, files, known["archive"]) == 2


def test_dcmtk_gets_through_by_its_own_tls(receiver, known, files):
    tool = orthanc.tool("storescu")
    mine = known["archive"]
    secured = ["+tls", mine.key, mine.certificate, "+cf", mine.authority]
    command = [tool, *secured, "-aec", "SCANWISE", "127.0.0.1", str(receiver.port), *files]
    assert subprocess.run(list(map(str, command)), capture_output=True).returncode == 0
    plain = [tool, "-aec", "SCANWISE", "127.0.0.1", str(receiver.port), *files]
    assert subprocess.run(list(map(str, plain)), capture_output=True).returncode != 0


@pytest.mark.parametrize("missing", ["certificate", "key", "authority"])
def test_files_that_are_none_are_refused_in_words(known, tmp_path, missing):
    fields = {name: getattr(known["node"], name) for name in ("certificate", "key", "authority")}
    (tmp_path / "none.pem").write_text("nothing\n")
    for file in (tmp_path / "away.pem", tmp_path / "none.pem"):
        wrong = Certificates(**fields | {missing: file})
        for context in (wrong.listening, wrong.calling):
            with pytest.raises(ValueError, match="no certificate, its key without a password, and authorities"):
                context()
