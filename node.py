"""The command line of the node: a DICOM application entity that judges what it is sent, and tells the archive."""

import argparse
import contextlib
import re
import signal
import sys
from pathlib import Path

import model
from archive.node.incoming import Incoming
from archive.node.outbox import Outbox
from archive.node.receive import Receiver
from archive.node.send import ByStore, ByStow, Peer
from archive.node.service import Counters, Folder, Node
from archive.node.tls import Certificates
from diagnosis import options as judging
from diagnosis.diagnoser import Diagnoser, find_weights
from reports.wording import languages
from scans import processes
from studies import NOTICE

ROOT = Path(__file__).resolve().parent
TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e]{1,16}")  # an AE title: no backslash, and here no blanks


def title(text: str) -> str:
    if not TITLE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no AE title; give up to 16 letters, digits or signs")
    return text


def destination(text: str) -> Peer:
    found = re.fullmatch(r"([^@]+)@(.+):(\d{1,5})", text)
    if not found or not 0 < int(found[3]) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r}: give AET@host:port, such as ORTHANC@127.0.0.1:4242")
    return Peer(title(found[1]), found[2].strip("[]"), int(found[3]))


def caller(text: str) -> Peer:
    name, _, host = text.partition("@")
    return Peer(title(name), host)


def address(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s@]+", text):
        raise argparse.ArgumentTypeError(
            f"{text!r}: give an address such as http://127.0.0.1:8042/dicom-web; a login belongs in ~/.netrc"
        )
    return text


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Receive studies by DICOM, judge them, send the results to the archive.", epilog=NOTICE
    )
    parser.add_argument("--aet", type=title, default="SCANWISE", help="this node's AE title (%(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=11112, help="port, 0 for any free one (%(default)s)")
    parser.add_argument(
        "--send-to", type=destination, metavar="AET@HOST:PORT", help="send the results there by C-STORE"
    )
    parser.add_argument("--stow", type=address, metavar="URL", help="send the results there by STOW-RS")
    parser.add_argument(
        "--peer",
        type=caller,
        action="append",
        default=[],
        metavar="AET[@ADDRESS]",
        help="a caller that may send studies, from this address alone where one is given (also: --send-to's AET)",
    )
    parser.add_argument("--any-peer", action="store_true", help="let everybody who reaches the port send studies")
    parser.add_argument(
        "--tls",
        type=Path,
        nargs=3,
        metavar=("CERTIFICATE", "KEY", "AUTHORITIES"),
        help="speak TLS, as callers and --send-to then must, with certificates of these authorities (PEM files)",
    )
    parser.add_argument(
        "--quiet",
        type=float,
        default=10,
        metavar="SECONDS",
        help="a study is complete when nothing more of it came for so long (%(default)s)",
    )
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "received", metavar="DIR", help="for studies and results in flight"
    )
    parser.add_argument(
        "--most",
        type=int,
        default=4000,
        metavar="MB",
        help="of studies, and of results, that may wait (%(default)s)",
    )
    judging.add_weights(parser)
    judging.add_device(parser)
    parser.add_argument(
        "--language", choices=list(languages()), default="en", help="of the PDF report (%(default)s)"
    )
    parser.add_argument(
        "--metrics", type=int, metavar="PORT", help="serve counters for Prometheus there, to this machine alone"
    )
    options = parser.parse_args(argv)
    if options.send_to is None and options.stow is None:
        parser.error("name an archive for the results: --send-to AET@host:port, --stow URL, or both")
    if options.quiet <= 0 or options.most <= 0:
        parser.error(f"--quiet {options.quiet:g}, --most {options.most}: give numbers above 0")
    if not options.any_peer and not options.peer and options.send_to is None:
        parser.error("name who may send studies with --peer AET, or let everybody with --any-peer")
    return options


def tell(line: str) -> None:
    print(line, flush=True)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    processes.warm()
    try:
        weights = options.weights or find_weights(ROOT / "weights", options.study)
        diagnoser = Diagnoser(weights, options.device, options.precision)
        folder = Folder(options.folder)
    except (model.WeightsError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    with contextlib.closing(folder):
        return serve(options, diagnoser, folder)


def serve(options: argparse.Namespace, diagnoser: Diagnoser, folder: Folder) -> int:
    """Receive, judge and send until SIGTERM or Ctrl-C."""
    most, counters = options.most << 20, Counters()
    incoming = Incoming(folder.path / "incoming", most, options.quiet)
    peers = None if options.any_peer else [*options.peer, *([options.send_to] if options.send_to else [])]
    try:
        tls = options.tls and Certificates(*options.tls)
        ways = {
            "store": options.send_to and ByStore(options.aet, options.send_to, tls),
            "stow": options.stow and ByStow(options.stow),
        }
        boxes = [Outbox(folder.path / "outgoing" / name, most, send, tell) for name, send in ways.items() if send]
        node = Node(diagnoser, incoming, boxes, tell, counters, options.language)
        if options.metrics is not None:
            import prometheus_client

            prometheus_client.start_http_server(options.metrics, "127.0.0.1", counters.registry)
        listen = (options.host, options.port)
        receiver = Receiver(options.aet, listen, peers, incoming, node.why_full, most, counters.instance, tls)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"cannot listen ({error.strerror}); choose another --port, --metrics or --host", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: node.stopping.set())
    for box in boxes:
        box.start()
    tell(f"Scanwise listens: {options.aet}@{options.host}:{receiver.port}. {NOTICE}")
    try:
        node.run(receiver.look)
    finally:
        receiver.close()
        for box in boxes:
            box.stop()
        processes.POOL.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
