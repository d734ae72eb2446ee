"""The rooms and who may import whom: what keeps science out of the server and the server out of training."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# room -> what it may import of ours
MAY_IMPORT = {
    "studies": set(),
    # a scan in
    "grid": set(),
    "formats": {"grid"},
    "dicoms": {"formats"},
    "scans": {"dicoms", "formats", "grid", "studies"},
    # the network
    "slabs": set(),
    "pictures": set(),
    "dropout": set(),
    "model": {"dropout", "pictures", "slabs", "studies"},
    # learning
    "augment": set(),
    "cases": {"scans", "studies"},
    "cache": {"cases", "scans", "studies"},
    "openi": {"cache", "cases", "scans"},
    "datasets": {"augment", "cache", "cases", "openi", "scans", "studies"},
    "card": {"studies"},
    "evaluate": {"cache", "card", "datasets", "likeness", "model", "scans", "studies"},
    "frozen": {"cache", "model"},
    "fit": {"cache", "card", "datasets", "frozen", "model", "studies"},
    "sweep": {"cache", "card", "fit"},
    "train": {"datasets", "evaluate", "fit", "frozen", "model", "scans", "studies", "sweep"},
    "anatomy": set(),
    "phantom": {"anatomy"},
    "simulate": {"anatomy", "phantom", "studies"},
    # judging
    "likeness": {"studies"},
    "gate": {"likeness", "model", "scans", "studies"},
    "layers": {"model"},
    "explain": {"layers", "model", "scans", "studies"},
    "diagnose": {"dropout", "explain", "gate", "model", "report", "scans", "studies"},
    # telling
    "figures": {"diagnose", "explain"},
    "paper": {"diagnose", "explain", "figures"},
    "report": {"diagnose", "dropout", "explain", "figures", "gate", "paper"},
    "views": {"diagnose", "explain", "report", "scans"},
    "desk": {"diagnose", "dropout", "model", "scans"},
    "words": {"desk", "gate", "model", "studies"},
    "page": {"desk", "dropout", "scans", "views", "words"},
    "server": {"desk", "diagnose", "scans", "studies", "views"},
    "receive": {"desk", "diagnose", "dropout", "scans", "server", "views"},
    "app": {"desk", "diagnose", "model", "page", "receive", "scans", "server", "words"},
}


def imports(path: Path) -> set[str]:
    """Every top name that the file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_every_room_is_in_the_table():
    assert {path.stem for path in ROOT.glob("*.py")} == set(MAY_IMPORT)


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_imports_run_one_way(room):
    ours = imports(ROOT / f"{room}.py") & set(MAY_IMPORT)
    assert ours <= MAY_IMPORT[room] | {room}


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_says_what_it_holds(room):
    docstring = ast.get_docstring(ast.parse((ROOT / f"{room}.py").read_text(encoding="utf-8")))
    assert docstring and docstring.splitlines()[0].endswith((".", ":", ";", ","))


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_stays_readable_in_one_sitting(room):
    assert len((ROOT / f"{room}.py").read_text(encoding="utf-8").splitlines()) <= 450
