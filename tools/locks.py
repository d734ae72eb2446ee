"""Writes the locks: every package beneath the files of requirements, each file by its SHA-256.

    python -m tools.locks

`locks/run.txt` holds what running needs but torch, `locks/torch.txt` torch and its CUDA libraries (a machine
without a card may take the small CPU build instead, whose files have other hashes), `locks/ray.txt` what many
machines need beside them, `locks/dev.txt` what tests and tools need, `locks/uv.txt` the installer. Each is
whole, so that it is installed without resolving anything. No lock names a registry. Versions that still fit
stay; `--upgrade` takes the newest.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "locks"
OLDEST = "3.10"  # the locks hold for this Python and every later one
INSTALLER = "uv==0.13.9"
OF_TORCH = re.compile(r"(torch|torchvision|triton|nvidia-.*|cuda-.*)==")
HEAD = "# Written by `make lock`; install with --no-deps --require-hashes. {what}\n"
WHAT = {
    "run": "What running and training need, but torch.",
    "torch": "torch, torchvision and their CUDA libraries.",
    "ray": "What many machines and Parquet need beside those.",
    "dev": "What tests and tools need beside all of those.",
    "uv": "The installer.",
}


def entries(text: str) -> dict[str, str]:
    """The entries of a lock by their first word, such as `numpy==2.4.6`; markers and hashes stay with them."""
    found = re.split(
        r"^(?=[a-zA-Z0-9])", "".join(line for line in text.splitlines(True) if line[0] != "#"), flags=re.M
    )
    return {entry.split("\n")[0].rstrip("\\ "): entry for entry in found if entry.strip()}


def compiled(source: Path, known: str, upgrade: bool) -> dict[str, str]:
    """What uv resolves a file of requirements to, holding to the versions of `known` where they fit."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "lock.txt"
        out.write_text(known, encoding="utf-8")
        command = [sys.executable, "-m", "uv", "pip", "compile", "--universal", "--python-version", OLDEST]
        command += ["--generate-hashes", "--no-emit-index-url", "--no-header", "--no-annotate", "--quiet"]
        command += ["--upgrade"] if upgrade else []
        subprocess.run([*command, str(source), "--output-file", str(out)], check=True, cwd=ROOT)
        return entries(out.read_text(encoding="utf-8"))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that are allowed")
    upgrade = parser.parse_args(argv).upgrade
    LOCKS.mkdir(exist_ok=True)
    before = "".join(path.read_text(encoding="utf-8") for path in sorted(LOCKS.glob("*.txt")))
    run = compiled(ROOT / "requirements.txt", before, upgrade)
    ray = compiled(ROOT / "requirements-ray.txt", "".join(run.values()) + before, upgrade)
    dev = compiled(ROOT / "requirements-dev.txt", "".join(ray.values()) + before, upgrade)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "uv.in").write_text(INSTALLER, encoding="utf-8")
        uv = compiled(Path(folder) / "uv.in", "", upgrade)
    wanted, given = ({name.split(" ")[0] for name in some} for some in (run | ray, dev))
    differing = wanted - given
    if differing:
        sys.exit(f"the files of requirements want different versions: {', '.join(sorted(differing))}")
    parts = {
        "run": {name: text for name, text in run.items() if not OF_TORCH.match(name)},
        "torch": {name: text for name, text in run.items() if OF_TORCH.match(name)},
        "ray": {name: text for name, text in ray.items() if name not in run},
        "dev": {name: text for name, text in dev.items() if name not in run | ray},
        "uv": uv,
    }
    for name, part in parts.items():
        text = HEAD.format(what=WHAT[name]) + "".join(part.values())
        (LOCKS / f"{name}.txt").write_text(text, encoding="utf-8")
        print(f"locks/{name}.txt: {len(part)} packages")


if __name__ == "__main__":
    main()
