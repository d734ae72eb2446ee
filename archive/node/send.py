"""The two ways to an archive: C-STORE over an association, and STOW-RS over HTTP.

Both take the files of one study's results and tell of each as soon as the archive has it.
"""

import logging
import socket
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import requests
from dicomweb_client.api import DICOMwebClient
from pynetdicom import AE, Association, build_context
from requests.adapters import HTTPAdapter

from archive.node.outbox import Away, Refused
from archive.node.tls import Certificates

SECONDS = 30.0  # that an archive may be silent
VERIFICATION = "1.2.840.10008.1.1"  # the SOP class of C-ECHO
Accepted = Callable[[Path], None]

for chatty in ("pynetdicom", "dicomweb_client"):  # their lines quote what is sent, names among it
    logging.getLogger(chatty).setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class Peer:
    """Another application entity: its title, and where it is reached."""

    title: str
    host: str = ""  # a name or an address; none: wherever it calls from
    port: int = 0

    @property
    def addresses(self) -> set[str]:
        """The addresses that its host's name stands for; ValueError where it stands for none."""
        if not self.host:
            return set()
        try:
            return {str(found[4][0]) for found in socket.getaddrinfo(self.host, None)}
        except OSError as error:
            raise ValueError(
                f"{self.title}@{self.host}: no such host ({error.strerror}); check the name"
            ) from error


class Checkpoint(threading.Event):
    """Where the thread of an association waits while a request is under way; once `clear` returns it is there.

    pynetdicom's own lets that thread slip by on a busy machine; it then takes the answer, for which the request
    waits in vain.
    """

    def __init__(self) -> None:
        super().__init__()
        self._gate, self._open, self._blocked = threading.Condition(), True, False

    def wait(self, timeout: float | None = None) -> bool:
        with self._gate:
            self._blocked = True
            self._gate.notify_all()
            self._gate.wait_for(lambda: self._open, timeout)
            self._blocked = False
        return True

    def clear(self) -> None:
        with self._gate:
            self._open = False
            self._gate.wait_for(lambda: self._blocked, SECONDS)  # never, where that thread has ended

    def set(self) -> None:
        with self._gate:
            self._open = True
            self._gate.notify_all()


def steadied(association: Association) -> Association:
    """The association, with a checkpoint that holds."""
    association._reactor_checkpoint = Checkpoint()
    return association


class ByStore:
    """C-STORE: one association a study, one request an object."""

    def __init__(self, title: str, archive: Peer, tls: Certificates | None = None):
        self.title, self.archive = title, archive
        self.secured = (tls.calling(), archive.host) if tls else None

    def __call__(self, files: list[Path], accepted: Accepted) -> None:
        entity = AE(self.title)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = SECONDS
        read = {file: pydicom.dcmread(file) for file in files}
        classes = {(str(made.SOPClassUID), made.file_meta.TransferSyntaxUID) for made in read.values()}
        contexts = [build_context(sop, syntax) for sop, syntax in sorted(classes)]
        peer = self.archive
        wanted = contexts or [build_context(VERIFICATION)]
        association = steadied(entity.associate(peer.host, peer.port, wanted, peer.title, tls_args=self.secured))
        if association.is_rejected:
            raise Refused("it rejects the association")
        if not association.is_established:
            raise Away("no association")
        try:
            refused = [self._store(association, made, file, accepted) for file, made in read.items()]
        finally:
            if association.is_established:
                association.release()
        if any(refused):
            raise Refused(next(why for why in refused if why))

    def _store(self, association: Any, made: pydicom.Dataset, file: Path, accepted: Accepted) -> str:
        """Why the archive did not take an object; empty where it did."""
        try:
            status = association.send_c_store(made)
        except ValueError:  # no context was agreed on for this class
            return f"{made.SOPClassUID.name} is not accepted"
        except RuntimeError as error:
            raise Away("the association broke off") from error
        if "Status" not in status:
            raise Away("no answer")
        code = int(status.Status)
        if code == 0 or code >> 12 == 0xB:  # success, or success with a warning
            accepted(file)
            return ""
        return f"status {code:04X}"


class Bounded(HTTPAdapter):
    """Requests that give up on a silent archive."""

    def send(self, request: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        options["timeout"] = options.get("timeout") or SECONDS
        return super().send(request, **options)


class ByStow:
    """STOW-RS: one request an object. A login stands in `~/.netrc`, where requests looks for it."""

    def __init__(self, url: str):
        session = requests.Session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, Bounded())
        self.client = DICOMwebClient(url.rstrip("/"), session=session)
        self.client.set_http_retry_params(retry=False)

    def __call__(self, files: list[Path], accepted: Accepted) -> None:
        refused = ""
        for file in files:
            made = pydicom.dcmread(file)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    answer = self.client.store_instances([made])
            except requests.HTTPError as error:
                code = 500 if error.response is None else error.response.status_code
                if code >= 500 or code in (408, 429):
                    raise Away(f"HTTP {code}") from error
                refused = f"HTTP {code}"
                continue
            except requests.RequestException as error:
                raise Away(type(error).__name__) from error
            if answer.get("FailedSOPSequence"):
                refused = f"reason {int(answer.FailedSOPSequence[0].get('FailureReason', 0)):04X}"
            else:
                accepted(file)
        if refused:
            raise Refused(refused)
