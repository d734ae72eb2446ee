"""What a run ran on: system, processor, versions of what is installed, and the very source."""

import hashlib
import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("run.txt", "torch.txt")  # name what training needs


def environment(device: torch.device) -> dict[str, Any]:
    """The machine without its name, and every version that the locks hold, as it is installed."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "packages": packages(),
        "source": source(),
    }


def versions() -> dict[str, str]:
    """The versions that matter most."""
    return {"python": sys.version.split()[0], "torch": torch.__version__, "numpy": np.__version__}


def processor() -> str:
    """The processor's own name, where the system tells it."""
    try:
        told = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
    except OSError:
        told = None
    return told[1] if told else platform.processor() or platform.machine()


def packages() -> dict[str, str]:
    """The installed version of each package in the locks; of every package where there are no locks."""
    files = [ROOT / "locks" / name for name in LOCKS if (ROOT / "locks" / name).is_file()]
    named = {
        name.lower()
        for file in files
        for name in re.findall(r"^([\w.-]+)==", file.read_text(encoding="utf-8"), re.M)
    }
    found = {one.metadata["Name"].lower(): one.version for one in metadata.distributions() if one.metadata["Name"]}
    return {name: found[name] for name in sorted(found) if not named or name in named}


def source() -> str:
    """SHA-256 over the code as it runs, changed or not: the commands and every package."""
    files = [*ROOT.glob("*.py")]
    for package in ROOT.glob("*/__init__.py"):
        files += package.parent.rglob("*.py")
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.relative_to(ROOT).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()
