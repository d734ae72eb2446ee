"""The password: how it is compared, how often it may be guessed, and how long a browser stays signed in.

It knows nothing of HTTP; addresses come as text, times from a clock that tests can turn.
"""

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable

WINDOW = 300.0  # seconds for which a wrong password is remembered
TRIES = 10  # wrong passwords of one address within the window
TRIES_IN_ALL = 100  # of all addresses together, but for those that gave the right one lately
LASTS = 12 * 3600.0  # seconds until a browser must sign in again
IDLE = 2 * 3600.0  # or that it may be silent
VISITORS = 1000  # browsers signed in at once
ADDRESSES = 10_000  # addresses remembered


class SignIn:
    """One a server. Without a password everybody is admitted and nothing is counted."""

    def __init__(self, password: str | None, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self._right = [_digest(form) for form in _forms(password)] if password is not None else []
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()
        self._wrong_in_all: deque[float] = deque()
        self._known: OrderedDict[str, float] = OrderedDict()  # addresses that gave the right one, and when
        self._visitors: OrderedDict[str, tuple[float, float]] = OrderedDict()  # begun, last heard of

    @property
    def needed(self) -> bool:
        return bool(self._right)

    # --- guessing ----------------------------------------------------------------------------------------

    def wait(self, address: str) -> float:
        """Seconds until this address may try a password; 0 means now."""
        now, client = self.clock(), network(address)
        waits = [0.0]
        tries = self._recent(self._wrong.get(client, deque()), now)
        if len(tries) >= TRIES:
            waits.append(tries[-TRIES] + WINDOW - now)
        tries = self._recent(self._wrong_in_all, now)
        if len(tries) >= TRIES_IN_ALL and now - self._known.get(client, -LASTS) >= LASTS:
            waits.append(tries[-TRIES_IN_ALL] + WINDOW - now)
        return max(waits)

    def right(self, given: bytes, address: str) -> bool:
        """Whether this is the password; a wrong one is counted. Ask `wait` first."""
        digest, client = _digest(given), network(address)
        found = [hmac.compare_digest(digest, right) for right in self._right]  # all of them: no word of which
        if any(found):
            self._known[client] = self.clock()
            self._trim(self._known)
            return True
        now = self.clock()
        self._wrong.setdefault(client, deque(maxlen=TRIES)).append(now)
        self._wrong.move_to_end(client)
        self._trim(self._wrong)
        self._wrong_in_all.append(now)
        return False

    @staticmethod
    def _recent(tries: deque[float], now: float) -> deque[float]:
        while tries and now - tries[0] >= WINDOW:
            tries.popleft()
        return tries

    @staticmethod
    def _trim(table: OrderedDict) -> None:
        while len(table) > ADDRESSES:
            table.popitem(last=False)

    # --- staying -----------------------------------------------------------------------------------------

    def enter(self) -> str:
        """A key for a browser that gave the right password."""
        key, now = secrets.token_urlsafe(24), self.clock()
        self._visitors[key] = now, now
        while len(self._visitors) > VISITORS:
            self._visitors.popitem(last=False)
        return key

    def knows(self, key: str) -> bool:
        """Whether the key was given here and has not run out; being asked keeps it alive."""
        begun, heard = self._visitors.get(key, (0.0, 0.0))
        now = self.clock()
        if key not in self._visitors or now - begun >= LASTS or now - heard >= IDLE:
            self._visitors.pop(key, None)
            return False
        self._visitors[key] = begun, now
        return True

    def leave(self, key: str) -> None:
        self._visitors.pop(key, None)


def network(address: str) -> str:
    """Who is counted as one: an IPv4 address, or the half of an IPv6 address that a household gets."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if known.version == 6 and known.ipv4_mapped is None:
        return str(ipaddress.ip_network((known, 64), strict=False))
    return str(known.ipv4_mapped or known) if known.version == 6 else str(known)


def _forms(password: str) -> list[bytes]:
    """The bytes in which a password may come: browsers and curl send UTF-8, some clients Latin-1."""
    forms = [password.encode()]
    try:
        forms.append(password.encode("latin-1"))
    except UnicodeEncodeError:
        forms.append(forms[0])
    return forms


def _digest(given: bytes) -> bytes:
    return hashlib.sha256(given).digest()
