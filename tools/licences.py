"""Writes docs/licences.md: the licence of every package that the locks install.

    python -m tools.licences

Read from the packages' own metadata in this environment; a package of a lock that is not installed here, as it is
for another machine, keeps the row that it had.
"""

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "licences.md"
WHAT = {
    "run": "Running and training",
    "torch": "torch and its CUDA libraries",
    "ray": "Many machines and Parquet",
    "dev": "Tests and tools",
    "uv": "Set-up",
}
HEAD = """# Licences of what is installed

Written by `make lock` from the metadata of each package in `locks/`. None of these packages is part of this
repository; each is installed under its own licence. Versions stand in the locks.

Two are copyleft: `fpdf2` (LGPL-3), which draws the PDF, and `pylibjpeg-libjpeg` (GPL-3), which decodes DICOM's
JPEG and JPEG-LS in a process of its own. Whoever passes Scanwise on together with them has their terms to keep, or
leaves the second out: such files are then refused, all others are read.

## What the bundled weights learned from

- The ICBM 152 nonlinear symmetric template 2009a, carried by nilearn; its notice stands in `demodata/README.md`.
- The 20 training label maps of SynthSeg (Apache-2.0; label maps, no scans), for `weights/segmenter.safetensors`;
  16 to learn from, 4 held out. None of them is part of this repository.
"""


def names(lock: Path) -> list[str]:
    """The packages of a lock, each once."""
    return sorted(set(re.findall(r"^([A-Za-z0-9_.-]+)==", lock.read_text(encoding="utf-8"), re.M)))


def licence(found: Distribution) -> str:
    """A package's licence in a few words: its expression, its classifiers, or what its licence field says."""
    meta = found.metadata
    if expression := meta.get("License-Expression"):
        return expression
    kinds = [text.split(" :: ")[-1] for text in meta.get_all("Classifier") or [] if text.startswith("License :: ")]
    kinds = [kind for kind in kinds if kind != "OSI Approved"]
    if kinds:
        return ", ".join(kinds)
    said = (meta.get("License") or "").strip().splitlines()
    return said[0][:60] if said else "see its files"


def rows_before() -> dict[str, str]:
    if not PAGE.is_file():
        return {}
    return dict(re.findall(r"^\| ([\w.-]+) \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.M))


def main() -> None:
    before, parts = rows_before(), [HEAD]
    for part, title in WHAT.items():
        parts.append(f"\n## {title}\n\n| package | licence |\n|---|---|\n")
        for name in names(ROOT / "locks" / f"{part}.txt"):
            try:
                told = licence(distribution(name))
            except PackageNotFoundError:
                told = before.get(name, "for other machines; see its files")
            parts.append(f"| {name} | {told.replace('|', '/')} |\n")
    PAGE.write_text("".join(parts), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {sum(part.startswith('| ') for part in parts)} packages")


if __name__ == "__main__":
    main()
