"""Both ways to an archive, against ones that accept, refuse, break off and are not there."""

import http.server
import threading

import pydicom
import pytest
from pynetdicom import AE, evt

from archive.node.outbox import Away, Refused
from archive.node.send import ByStore, ByStow, Peer
from tests import dicom_study
from tests.support import free_ports

# pynetdicom leaves it to the garbage collector to close the socket of a connection that failed
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
MR = "1.2.840.10008.5.1.4.1.1.4"


@pytest.fixture
def files(tmp_path):
    return dicom_study.written(dicom_study.instances(20.0)[:3], tmp_path / "results")


class Listening:
    """An archive that answers with the given statuses in turn, and takes the given class."""

    def __init__(self, *statuses: int, sop: str = MR, titles: tuple[str, ...] = ()):
        self.statuses, self.got = list(statuses), []
        entity = AE("ARCHIVE")
        entity.require_calling_aet = list(titles)
        entity.add_supported_context(sop)
        self.server = entity.start_server(("127.0.0.1", 0), False, evt_handlers=[(evt.EVT_C_STORE, self.store)])
        self.peer = Peer("ARCHIVE", "127.0.0.1", self.server.server_address[1])

    def store(self, event) -> int:
        status = self.statuses.pop(0) if self.statuses else 0
        if status < 0:
            event.assoc.abort()
            return 0
        self.got.append(str(event.dataset.SOPInstanceUID))
        return status


@pytest.fixture
def listen():
    started = []

    def start(*statuses, **wishes):
        started.append(Listening(*statuses, **wishes))
        return started[-1]

    yield start
    for one in started:
        one.server.shutdown()


def send(way, files):
    accepted = []
    try:
        way(files, accepted.append)
    except (Away, Refused) as error:
        return [file.name for file in accepted], f"{type(error).__name__}: {error}"
    return [file.name for file in accepted], ""


def test_all_are_stored_and_told_one_by_one(files, listen):
    archive = listen()
    assert send(ByStore("SCANWISE", archive.peer), files) == (["0.dcm", "1.dcm", "2.dcm"], "")
    assert archive.got == [pydicom.dcmread(file).SOPInstanceUID for file in files]


@pytest.mark.parametrize(
    ("statuses", "accepted", "said"),
    [
        ((0, 0xB000, 0), ["0.dcm", "1.dcm", "2.dcm"], ""),  # stored, with a warning
        ((0, 0xA900, 0), ["0.dcm", "2.dcm"], "Refused: status A900"),
        ((0xA700, 0xA700, 0xA700), [], "Refused: status A700"),
        ((0, -1), ["0.dcm"], "Away: no answer"),
    ],
)
def test_what_an_archive_says_is_heard(files, listen, statuses, accepted, said):
    assert send(ByStore("SCANWISE", listen(*statuses).peer), files) == (accepted, said)


def test_an_archive_that_knows_us_not_or_takes_no_such_class_refuses(files, listen):
    assert (
        send(ByStore("SCANWISE", listen(titles=("OTHER",)).peer), files)[1]
        == "Refused: it rejects the association"
    )
    other = listen(sop="1.2.840.10008.5.1.4.1.1.2")
    accepted, said = send(ByStore("SCANWISE", other.peer), files)
    assert accepted == [] and said.startswith(("Refused", "Away"))


def test_an_archive_that_is_not_there_is_away(files):
    (port,) = free_ports(1)
    assert send(ByStore("SCANWISE", Peer("ARCHIVE", "127.0.0.1", port)), files) == ([], "Away: no association")
    assert send(ByStow(f"http://127.0.0.1:{port}/dicom-web"), files) == ([], "Away: ConnectionError")


def test_a_host_that_has_no_address_is_told():
    with pytest.raises(ValueError, match=r"A@no\.such\.invalid: no such host"):
        _ = Peer("A", "no.such.invalid").addresses
    assert Peer("A", "127.0.0.1").addresses == {"127.0.0.1"} and Peer("A").addresses == set()


@pytest.fixture
def web():
    """A server that answers every STOW request with the next of `codes`."""
    codes: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(codes.pop(0) if codes else 200)
            body = b'{"00081199": {"vr": "SQ", "Value": []}}'
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *rest):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield ByStow(f"http://127.0.0.1:{server.server_address[1]}/dicom-web"), codes
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.mark.parametrize(
    ("answers", "accepted", "said"),
    [
        ([200, 200, 200], 3, ""),
        ([200, 503], 1, "Away: HTTP 503"),
        ([429], 0, "Away: HTTP 429"),
        ([200, 409, 200], 2, "Refused: HTTP 409"),
        ([401, 401, 401], 0, "Refused: HTTP 401"),
    ],
)
def test_what_a_web_archive_says_is_heard(files, web, answers, accepted, said):
    way, codes = web
    codes[:] = answers
    found, told = send(way, files)
    assert (len(found), told) == (accepted, said)
