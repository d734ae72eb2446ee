"""The archive that hospitals run: Debian's Orthanc with its DICOMweb plugin, as a process of a test's own.

It starts from a JSON configuration in a folder of its own, on ports that nobody listens on, takes DICOM under
the title ARCHIVE from anybody on this machine, and is asked by its REST API. Where it is not installed the tests
are skipped with words, unless SCANWISE_NEEDS_ARCHIVE=1 says that they must run.
"""

import contextlib
import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.support import free_ports, until

ORTHANC = shutil.which("Orthanc") or shutil.which("orthanc")
PLUGINS = [Path(f"/usr/{folder}/orthanc/plugins") for folder in ("share", "lib", "local/share")]
PLUGIN = next((found for folder in PLUGINS for found in folder.glob("libOrthancDicomWeb.so*")), None)
TOOLS = ("storescu", "echoscu", "dsrdump", "dcm2pdf")
MUST = os.environ.get("SCANWISE_NEEDS_ARCHIVE") == "1"


def needed() -> None:
    """Skip unless all of it is installed."""
    missing = [name for name in TOOLS if not shutil.which(name)]
    missing += [] if ORTHANC else ["Orthanc"]
    missing += [] if PLUGIN else ["its DICOMweb plugin"]
    if missing:
        lacking(f"no {', '.join(missing)} here; install `orthanc`, `orthanc-dicomweb` and `dcmtk`")


def tool(name: str) -> str:
    """Where a program of DCMTK lies; a test that it alone is missing for is skipped."""
    return shutil.which(name) or lacking(f"no {name} here; install `dcmtk` and `dicom3tools`")


def lacking(words: str) -> NoReturn:
    """Skip on a person's machine, which need not have an archive; fail where all of it was to be installed."""
    assert not MUST, words
    pytest.skip(words)


@dataclass(frozen=True)
class Archive:
    port: int  # of DICOM
    http: int

    @property
    def stow(self) -> str:
        return f"http://127.0.0.1:{self.http}/dicom-web"

    def ask(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=60) as answer:
            return answer.read()

    def get(self, path: str) -> Any:
        return json.loads(self.ask(path))

    def held(self) -> dict[str, str]:
        """SOP class → Orthanc's own id of the last instance of it."""
        return {self.sop(one): one for one in self.get("/instances")}

    def sop(self, instance: str) -> str:
        return self.ask(f"/instances/{instance}/metadata/SopClassUid").decode()

    def file(self, instance: str) -> bytes:
        return self.ask(f"/instances/{instance}/file")

    def preview(self, instance: str, frame: int = 0) -> bytes:
        """Its own rendering of one frame, PNG."""
        return self.ask(f"/instances/{instance}/frames/{frame}/preview")


@contextlib.contextmanager
def archive(folder: Path, ports: list[int] | None = None) -> Iterator[Archive]:
    """An Orthanc until the block ends, empty at the start unless the folder was another's before."""
    needed()
    folder.mkdir(parents=True, exist_ok=True)
    dicom, http = ports or free_ports(2)
    settings = {
        "Name": "ARCHIVE",
        "DicomAet": "ARCHIVE",
        "DicomPort": dicom,
        "DicomCheckCalledAet": True,
        "DicomAlwaysAllowStore": True,
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings), encoding="utf-8")
    with (folder / "log.txt").open("w") as out:
        process = subprocess.Popen([str(ORTHANC), str(folder / "orthanc.json")], stdout=out, stderr=out)
        try:
            started = Archive(dicom, http)

            def ready() -> bool:
                assert process.poll() is None, (folder / "log.txt").read_text()
                with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                    return bool(started.get("/system"))
                return False

            until(ready, 60, "Orthanc to answer")
            yield started
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def storescu(port: int, files: list[Path], called: str = "SCANWISE", calling: str = "ARCHIVE") -> int:
    """DCMTK's own sender; its exit status."""
    command = ["storescu", "-aet", calling, "-aec", called, "127.0.0.1", str(port), *map(str, files)]
    return subprocess.run(command, capture_output=True, timeout=120, check=False).returncode


def echoscu(port: int, called: str = "SCANWISE", calling: str = "ARCHIVE") -> int:
    command = ["echoscu", "-aet", calling, "-aec", called, "127.0.0.1", str(port)]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode
