"""Which names this server answers to, against a foreign name that was made to point here."""

import ipaddress
import socket
import urllib.parse


def host_allowed(host: str, allowed: frozenset[str]) -> bool:
    """Names on the list, and plain addresses: a rebound name is what an attacker has, never an address."""
    try:
        name = urllib.parse.urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name in allowed:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or "*" in allowed


def hosts(bound: str, extra: list[str]) -> frozenset[str]:
    """The names that a server bound to `bound` answers to; "*" stands for any plain address."""
    names = {"localhost", bound.lower(), *(name.lower() for name in extra)}
    if bound in ("", "0.0.0.0", "::"):
        names |= {"*", socket.gethostname().lower()}
    return frozenset(names - {""})
