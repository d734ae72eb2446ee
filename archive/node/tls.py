"""DICOM over TLS: the certificates by which the node and its peers know each other, on both sides of a line."""

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HANDSHAKE = 60.0  # seconds that a caller may take over it


@dataclass(frozen=True)
class Certificates:
    """This node's own certificate and key, and the authorities whose certificates it takes from others."""

    certificate: Path
    key: Path
    authority: Path

    def listening(self) -> ssl.SSLContext:
        """For callers, each of which has to show a certificate; ValueError where the files are no good."""
        return self._context(Patient(ssl.PROTOCOL_TLS_SERVER))

    def calling(self) -> ssl.SSLContext:
        """For an archive, whose certificate has to be of the name by which it is called."""
        return self._context(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def _context(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(self.certificate, self.key, password="")  # never asks at a terminal
            context.load_verify_locations(self.authority)
        except OSError as error:  # ssl.SSLError is one
            files = f"{self.certificate}, {self.key} and {self.authority}"
            raise ValueError(
                f"{files}: no certificate, its key without a password, and authorities, all in PEM "
                f"({error.strerror or error})"
            ) from error
        return context


class Patient(ssl.SSLContext):
    """Callers are greeted each in their own thread: one who says nothing keeps nobody else waiting."""

    def wrap_socket(self, sock: socket.socket, *given: Any, **options: Any) -> ssl.SSLSocket:
        sock.settimeout(HANDSHAKE)
        options["do_handshake_on_connect"] = False
        return super().wrap_socket(sock, *given, **options)
