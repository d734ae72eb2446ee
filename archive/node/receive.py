"""The listening side: C-ECHO and C-STORE from known callers, each instance counted before it is kept.

What a caller gets told is a DICOM status; nothing of what it sent is printed.
"""

import io
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pydicom
from pydicom import uid
from pynetdicom import AE, evt

from archive.node.incoming import Incoming, NoRoom
from archive.node.send import VERIFICATION, Peer
from archive.node.tls import Certificates
from scans.dicom.pixels import DECODERS

OUT_OF_RESOURCES, NO_MATCH, NOT_UNDERSTOOD = 0xA700, 0xA900, 0xC000
REJECTED = (0x01, 0x01, 0x03)  # for good, by the service user: calling AE title not recognised
ASSOCIATIONS = 16  # at once
SILENT = 60.0  # seconds after which a silent association is cut
# Images that may be judged. Results are none of them, so what an archive forwards of ours does not come back.
CLASSES = (
    uid.MRImageStorage,
    uid.EnhancedMRImageStorage,
    uid.LegacyConvertedEnhancedMRImageStorage,
    uid.CTImageStorage,
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
)
SYNTAXES = [
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    *DECODERS,
]


class Receiver:
    """One application entity that listens until it is closed."""

    def __init__(
        self,
        title: str,
        address: tuple[str, int],
        peers: list[Peer] | None,
        incoming: Incoming,
        why_full: Callable[[], str | None],
        largest: int,
        counted: Callable[[str], None] = lambda outcome: None,
        tls: Certificates | None = None,
    ):
        self.incoming, self.why_full, self.largest = incoming, why_full, largest
        self.callers = [(peer.title, peer.addresses) for peer in peers or ()]  # looked up once, at the start
        self.counted = counted
        self._open: dict[Any, int] = {}  # associations → bytes since their last instance
        self._lock = threading.Lock()
        entity = AE(title)
        entity.require_called_aet = True
        entity.require_calling_aet = [peer.title for peer in peers or ()]
        entity.maximum_associations = ASSOCIATIONS
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = SILENT
        entity.add_supported_context(VERIFICATION)
        for sop in CLASSES:
            entity.add_supported_context(sop, SYNTAXES)
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self.on_requested),
            (evt.EVT_REJECTED, self.on_rejected),
            (evt.EVT_ACCEPTED, self.on_accepted),
            (evt.EVT_DATA_RECV, self.on_data),
            (evt.EVT_C_STORE, self.on_store),
            (evt.EVT_RELEASED, self.on_released),
        ]
        secured = tls.listening() if tls else None
        self.server: Any = entity.start_server(address, False, evt_handlers=handlers, ssl_context=secured)

    @property
    def port(self) -> int:
        return self.server.server_address[1]

    def close(self) -> None:
        self.server.shutdown()
        self.look()

    def look(self) -> None:
        """Note the associations that ended without a word: broken off, timed out, aborted."""
        with self._lock:
            ended = [association for association in self._open if not association.is_alive()]
            for association in ended:
                del self._open[association]
        for association in ended:
            self.incoming.ended(association, well=False)

    # --- what happens on an association --------------------------------------------------------------------

    def on_requested(self, event: evt.Event) -> None:
        """Known titles from other addresses than their own; unknown titles are rejected by pynetdicom itself."""
        asking = event.assoc.requestor
        named = str(getattr(asking.primitive, "calling_ae_title", "")).strip()
        own = [addresses for title, addresses in self.callers if title == named]
        if own and not any(not addresses or asking.address in addresses for addresses in own):
            self.counted("unknown caller")
            event.assoc.acse.send_reject(*REJECTED)

    def on_rejected(self, event: evt.Event) -> None:
        self.counted("unknown caller")

    def on_accepted(self, event: evt.Event) -> None:
        with self._lock:
            self._open[event.assoc] = 0

    def on_data(self, event: evt.Event) -> None:
        with self._lock:
            if event.assoc not in self._open:
                return
            self._open[event.assoc] += len(event.data)
            too_much = self._open[event.assoc] > self.largest + (1 << 20)
        if too_much:  # in a thread of its own: this one is what an abort waits for
            threading.Thread(target=event.assoc.abort, daemon=True).start()

    def on_released(self, event: evt.Event) -> None:
        with self._lock:
            self._open.pop(event.assoc, None)
        self.incoming.ended(event.assoc, well=True)

    def on_store(self, event: evt.Event) -> int:
        with self._lock:
            if event.assoc in self._open:
                self._open[event.assoc] = 0
        status, outcome = self.kept(event)
        self.counted(outcome)
        return status

    def kept(self, event: evt.Event) -> tuple[int, str]:
        """Keep one instance; its status, and the outcome in a word."""
        if self.why_full() is not None:
            return OUT_OF_RESOURCES, "no room"
        try:
            body = event.encoded_dataset()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they quote values
                header = pydicom.dcmread(
                    io.BytesIO(body),
                    stop_before_pixels=True,
                    specific_tags=["StudyInstanceUID", "SOPInstanceUID", "SOPClassUID"],
                )
                study, instance = str(header.StudyInstanceUID), str(header.SOPInstanceUID)
        except Exception:  # what comes from elsewhere makes pydicom raise of every kind
            return NOT_UNDERSTOOD, "not understood"
        if instance != str(getattr(event.request, "AffectedSOPInstanceUID", "")) or not study:
            return NO_MATCH, "not understood"
        try:
            self.incoming.take(study, instance, body, event.assoc)
        except NoRoom:
            return OUT_OF_RESOURCES, "no room"
        return 0x0000, "kept"
