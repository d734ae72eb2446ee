"""A reader process: waits for files, reads each with `scans.read`, and hands the voxels over in shared memory.

It is started by `scans.processes`, which may kill it at any moment, and lives no longer than the other end of its
socket. torch is never imported here, nothing is logged, and only a `Scan` or a refusal goes back.
"""

import faulthandler
import json
import mmap
import os
import signal
import socket
import struct
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scans import memory, nifti, pictures  # noqa: F401  the readers, imported before a file waits for them
from scans.folders.listing import Folder
from scans.read import SURVEY, THUMBNAILS, guarded, parse
from scans.scan import Scan, ScanError

LENGTH = struct.Struct("<I")  # before each message, which is JSON
GRACE = 5  # seconds after which a reader ends itself, should the other side be gone


def main(descriptor: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started this
    if memory.resource is not None:
        memory.resource.setrlimit(memory.resource.RLIMIT_CORE, (0, 0))  # a dump would hold the scan
    with socket.socket(fileno=descriptor) as end, Path(os.devnull).open("w") as nowhere:
        send(end, {"ready": True})
        while received := receive(end):
            asked, descriptors = received
            faulthandler.dump_traceback_later(asked["seconds"] + GRACE, exit=True, file=nowhere)
            told, voxels = answer(asked, descriptors[0])
            send(end, told | {"worn": memory.BUDGET.worn}, *voxels)
            faulthandler.cancel_dump_traceback_later()
            memory.BUDGET.end()


def answer(asked: dict[str, Any], descriptor: int) -> tuple[dict[str, Any], list[int]]:
    """What to send back for one file, and the descriptor of its voxels where there are some."""
    try:
        if asked["names"] is not None:
            memory.BUDGET.begin(0)
            return made(Folder(descriptor, tuple(asked["names"])), asked)
        size = os.fstat(descriptor).st_size
        memory.BUDGET.begin(size)
        data = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)  # closed with its last view, a traceback's maybe
        return made(data, asked)
    except ScanError as error:
        return {"code": error.code, "message": str(error), "series": [one.record() for one in error.series]}, []
    except MemoryError:
        return {
            "code": "too-much-memory",
            "message": f"{asked['name']}: reading it takes more memory than a scan of "
            "its size may; export the scan again",
        }, []
    except (OSError, ValueError) as error:  # a mapping that failed
        return {
            "code": "unreadable",
            "message": f"{asked['name']}: it cannot be read ({type(error).__name__}); copy it to a local disk",
        }, []
    finally:
        os.close(descriptor)


def made(data: mmap.mmap | Folder, asked: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """What was asked for: the scan, a small picture of each series, or what a folder's headers say."""
    name, limit = asked["name"], asked["limit"]
    if asked.get("task") == "survey":
        return guarded(SURVEY, name, data, name, bytes.fromhex(asked["salt"]), limit), []
    if asked.get("task") == "thumbnails":
        return {"thumbnails": guarded(THUMBNAILS, name, data, name, limit)}, []
    return handed_over(parse(data, name, asked["series"], limit))


def handed_over(scan: Scan) -> tuple[dict[str, Any], list[int]]:
    """A scan's record, and its voxels where the other side can map them: there already, or else copied once."""
    voxels = scan.voxels
    order: Literal["C", "F"] = "F" if voxels.flags.f_contiguous and not voxels.flags.c_contiguous else "C"
    descriptor = memory.BUDGET.blocks.get(memory.address(voxels))
    in_place = voxels.flags.f_contiguous or voxels.flags.c_contiguous
    if descriptor is None or not in_place:
        voxels = np.asarray(voxels, dtype=voxels.dtype.newbyteorder("="), order=order)
        block = memory.BUDGET.empty(voxels.nbytes)
        block[:] = voxels.reshape(-1, order=order).view(np.uint8)
        descriptor = memory.BUDGET.blocks[memory.address(block)]
    return {
        "shape": list(voxels.shape),
        "dtype": voxels.dtype.str,
        "order": order,
        "kind": scan.kind,
        "affine": scan.affine.tolist(),
        "facts": scan.facts,
        "acquisition": scan.acquisition and scan.acquisition.record(),
        "series": [one.record() for one in scan.series],
        "source": scan.source and scan.source.record(),
    }, [descriptor]


def send(end: socket.socket, message: dict[str, Any], *descriptors: int) -> None:
    body = json.dumps(message).encode()
    sent = socket.send_fds(end, [LENGTH.pack(len(body)) + body], descriptors)
    if sent < LENGTH.size + len(body):
        end.sendall((LENGTH.pack(len(body)) + body)[sent:])


def receive(end: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and what came with it; None where the other side is gone."""
    first, descriptors, _, _ = socket.recv_fds(end, 1 << 16, 1)
    data = bytearray(first)
    while data and (len(data) < LENGTH.size or len(data) < LENGTH.size + LENGTH.unpack_from(data)[0]):
        more, extra, _, _ = socket.recv_fds(end, 1 << 16, 1)
        if not more:
            return None
        data += more
        descriptors += extra
    return (json.loads(data[LENGTH.size :]), descriptors) if data else None
