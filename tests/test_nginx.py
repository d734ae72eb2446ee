"""nginx before two processes, as `docs/nginx.conf` sets it up: people in real browsers, each on one of them.

Without nginx it is skipped with words, unless SCANWISE_NEEDS_PROXY=1 says that it must run.
"""

import json
import os
import shutil
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.asking import ANALYSIS, form
from tests.browser import result_of, send, visiting
from tests.certificates import authority
from tests.support import ROOT, Server, free_ports, running, until

NGINX = shutil.which("nginx")
WHOLE = """
pid {folder}/pid;
error_log {folder}/error.log info;
worker_processes 1;
daemon off;
master_process off;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/temp-body;
    proxy_temp_path {folder}/temp-proxy;
    include {folder}/scanwise.conf;
}}
"""


@dataclass(frozen=True)
class Front:
    """Both processes behind one address, for whoever wants a `Server`."""

    url: str
    processes: tuple[Server, Server]
    folder: Path

    def files(self) -> list[str]:
        return [name for process in self.processes for name in process.files()]


@pytest.fixture
def front(tmp_path: Path, server: Server, weights_folder: Path, head_file: Path) -> Iterator[Front]:
    if not NGINX:
        assert os.environ.get("SCANWISE_NEEDS_PROXY") != "1", "no nginx here"
        pytest.skip("no nginx here; install `nginx` to run this test")
    plain, secure = free_ports(2)
    certificate = authority(tmp_path / "certificate")
    options = ("--weights", weights_folder, "--example", head_file, "--workers", "1", "--proxy-from", "127.0.0.1")
    with running(tmp_path / "second", *options) as second:
        told = (ROOT / "docs" / "nginx.conf").read_text()
        for was, is_ in {
            "127.0.0.1:8081": f"127.0.0.1:{server.port}", "127.0.0.1:8082": f"127.0.0.1:{second.port}",
            "listen 80;": f"listen 127.0.0.1:{plain};", "listen 443 ssl;": f"listen 127.0.0.1:{secure} ssl;",
            "/etc/ssl/scans.example.pem": str(certificate),
            "/etc/ssl/private/scans.example.key": str(certificate.with_suffix(".key")),
        }.items():  # fmt: skip
            assert was in told
            told = told.replace(was, is_)
        (tmp_path / "scanwise.conf").write_text(told)
        (tmp_path / "nginx.conf").write_text(WHOLE.format(folder=tmp_path))
        process = subprocess.Popen([NGINX, "-c", tmp_path / "nginx.conf", "-p", tmp_path])
        try:
            until((tmp_path / "pid").exists, 60, "nginx")
            yield Front(f"https://localhost:{secure}", (server, second), tmp_path)
        finally:
            process.terminate()
            process.wait(30)


def test_people_are_shared_out_and_each_stays_with_one_process(browser, front: Front, head_file: Path):
    with visiting(browser, front) as go:
        met: dict[str, object] = {}
        for _ in range(20):
            page = go(ignore_https_errors=True)
            (cookie,) = (one for one in page.context.cookies() if one["name"] == "scanwise_node")
            assert cookie["httpOnly"] and cookie["secure"] and cookie["sameSite"] == "Strict"
            met.setdefault(cookie["value"], page)
            if len(met) == 2:
                break
        assert sorted(met) == ["scanwise_1", "scanwise_2"]
        for name, process in zip(("scanwise_1", "scanwise_2"), front.processes, strict=True):
            send(met[name], head_file)
            result_of(met[name])
            assert process.metric("scanwise_uploads_held") == 1
    unsigned = ssl._create_unverified_context()
    body, kind = form(("head.nii.gz", head_file.read_bytes()))
    asked = urllib.request.Request(front.url + ANALYSIS, body, {"Content-Type": kind, "X-Remote-User": "forged"})
    with urllib.request.urlopen(asked, timeout=120, context=unsigned) as answer:
        assert json.load(answer)[0]["label"]
    assert not [path for path in front.folder.glob("temp-*/**/*") if path.is_file()]
    assert "buffered to a temporary file" not in (front.folder / "error.log").read_text()
