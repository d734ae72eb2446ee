"""The server's command line: its options, their defaults, and what is wrong with them in words."""

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diagnosis import options as judging
from server.access.callers import header_name, network_of

ROOT = Path(__file__).resolve().parent.parent


def workers_for(cores: int) -> int:
    """Scans worked on at once: while one is read and prepared, another is in the network."""
    return min(cores, max(2, min(4, cores // 2)))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serve the page and the HTTP API.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port, 0 for any free one (%(default)s)")
    parser.add_argument(
        "--weights",
        type=Path,
        default=ROOT / "weights",
        metavar="DIR",
        help="folder of weights files (%(default)s)",
    )
    judging.add_segmenter(parser)
    judging.add_norms(parser)
    parser.add_argument(
        "--example", type=Path, metavar="FILE", help="scan that the page offers to try (the first in demodata/)"
    )
    parser.add_argument(
        "--uploads",
        type=Path,
        default=ROOT / "uploaded_img",
        metavar="DIR",
        help="folder for scans in flight, for this server alone (%(default)s)",
    )
    judging.add_networks(parser)
    judging.add_device(parser)
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        default=workers_for(os.cpu_count() or 1),
        help="scans worked on at once (%(default)s)",
    )
    parser.add_argument("--queue", type=int, default=8, metavar="N", help="scans that may wait (%(default)s)")
    parser.add_argument("--max-upload", type=int, default=300, metavar="MB", help="largest file (%(default)s)")
    parser.add_argument(
        "--keep",
        type=float,
        default=60,
        metavar="MINUTES",
        help="longest time that an upload is kept (%(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=30,
        metavar="SECONDS",
        help="longest time that a silent connection is waited for (%(default)s)",
    )
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="ask for the password in this file")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name that this server answers to, such as that of a proxy before it",
    )
    parser.add_argument(
        "--proxy-header",
        type=worded(header_name),
        metavar="NAME",
        help="the header in which a proxy names the person whom it has signed in, such as X-Remote-User",
    )
    parser.add_argument(
        "--proxy-from",
        type=worded(network_of),
        action="append",
        default=[],
        metavar="ADDRESS",
        help="the address or block of a proxy before this server; X-Forwarded-For, X-Real-Ip and --proxy-header "
        "are believed from there alone",
    )
    parser.add_argument(
        "--audit", type=Path, metavar="FILE", help="write down there who did what; what cannot be is refused"
    )
    options = parser.parse_args(argv)
    if options.proxy_header and not options.proxy_from:
        parser.error(
            "--proxy-header: say by --proxy-from ADDRESS where the proxy calls from, or all could send it"
        )
    for name in ("workers", "max_upload", "keep", "timeout"):
        if not 0 < getattr(options, name) < math.inf:
            parser.error(f"--{name.replace('_', '-')} {getattr(options, name)}: give a number above 0")
    return options


def worded(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """A reader of an option's text whose own words argparse shows."""

    def given(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return given
