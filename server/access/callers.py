"""Who asks: a person whom a proxy has signed in, whoever has the password, or anybody.

It knows nothing of HTTP; addresses come as text, the header's values as a list.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")  # a header's name
LONGEST = 200  # letters of a person's name
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Caller:
    """Who asks, and by what that is known: proxy, password, open or server."""

    by: str
    who: str


OPEN, PASSWORD = Caller("open", "open"), Caller("password", "password")
NOBODY = Caller("nobody", "nobody")  # who was not admitted
SERVER = Caller("server", "server")  # the server itself


class NotFromProxy(Exception):
    """The header says nothing that may be believed; `code` and words say why."""

    def __init__(self, code: str, words: str):
        super().__init__(words)
        self.code = code


def network_of(text: str) -> Network:
    """An address or a block of them; ValueError in words."""
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ValueError(f"{text!r}: give an address such as 10.0.0.5, or a block such as 10.0.0.0/28") from error
    if found.prefixlen == 0:
        raise ValueError(f"{text!r}: that is everybody, and anybody could name himself; give the proxy's address")
    return found


def header_name(text: str) -> str:
    if not TOKEN.fullmatch(text):
        raise ValueError(f"{text!r} is no name of a header; give one such as X-Remote-User")
    return text


class Proxy:
    """The reverse proxy that signs people in, if there is one: its addresses, and the header it names them in."""

    def __init__(self, header: str | None = None, networks: Sequence[Network] = ()):
        self.header, self.networks = header, tuple(networks)

    def is_at(self, address: str) -> bool:
        """Whether the proxy calls from this address, that of the line itself."""
        try:
            known = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(known, ipaddress.IPv6Address) and known.ipv4_mapped is not None:
            known = known.ipv4_mapped
        return any(known in network for network in self.networks)

    def caller(self, address: str, values: Sequence[str]) -> Caller | None:
        """The person whom the proxy names in the header's values; None where someone else calls without it."""
        if self.header is None:
            return None
        if not self.is_at(address):
            if values:
                raise NotFromProxy(
                    "forged-person",
                    f"the header {self.header} is believed from the proxy alone, and this does not come from it",
                )
            return None
        if len(values) > 1:
            raise NotFromProxy(
                "two-people",
                f"the header {self.header} came {len(values)} times; let the proxy replace what clients send",
            )
        name = decoded(values[0]) if values else ""
        if not name:
            raise NotFromProxy(
                "no-person",
                f"the proxy names nobody in the header {self.header}; sign in there, or let it send the header",
            )
        if len(name) > LONGEST or not name.isprintable():  # cut or cleaned it could be another's
            raise NotFromProxy(
                "odd-person",
                f"the header {self.header} holds a name of more than {LONGEST} letters, or with signs that no "
                "name has; let the proxy send a plain one",
            )
        return Caller("proxy", name)


def decoded(value: str) -> str:
    """A person's name as it was meant: headers are taken for Latin-1, and proxies send UTF-8."""
    try:
        return value.encode("latin-1").decode("utf-8").strip()
    except UnicodeError:
        return value.strip()
