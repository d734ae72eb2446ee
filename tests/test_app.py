"""The command that serves: what stops it is told in words."""

import subprocess
import sys
from pathlib import Path

from tests.support import ROOT, Server


def start(*arguments: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "app.py", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def test_a_taken_port_and_an_empty_folder_are_told_in_words(server: Server, tmp_path: Path):
    taken = start("--port", server.port, "--uploads", tmp_path / "up")
    assert taken.returncode == 2
    assert f"port {server.port}" in taken.stderr
    assert "--port" in taken.stderr
    assert "Traceback" not in taken.stderr
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "bad.x.safetensors").write_bytes(b"not weights")
    broken = start("--port", "0", "--weights", tmp_path / "weights", "--uploads", tmp_path / "up")
    assert broken.returncode == 2
    assert "bad.x.safetensors" in broken.stderr
    assert "no weights file" in broken.stderr
    assert "Traceback" not in broken.stderr
