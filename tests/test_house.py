"""The packages in the order in which a scan meets them: imports run one way, every module says what it holds."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support import ROOT

# Who may import whom: each row only from the rows above it, a package also from its own modules.
ORDER = [
    {"studies"},
    {"networks", "scans"},
    {"model", "simulation"},
    {"diagnosis", "data"},
    {"reports", "datasets"},
    {"archive"},
    {"scoring", "cohorts"},
    {"learning", "server"},
    {"app", "cohort", "demos", "diagnose", "evaluate", "node", "norms", "simulate", "train", "train_segmenter"},
]
RANK = {name: rank for rank, row in enumerate(ORDER) for name in row}
COMMANDS = ORDER[-1]
TOGETHER = {  # modules that one test file follows through
    "tests/scans/test_processes.py": {"scans/reader.py"},
    "tests/test_weights_hostile.py": {"networks/header_checks.py", "networks/pickled.py"},
}


def modules(root: Path) -> dict[str, Path]:
    """Every module of ours by its dotted name; a package's own `__init__` by the package's."""
    files = [*root.glob("*.py"), *(file for name in RANK for file in (root / name).rglob("*.py"))]
    names = {
        ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file for file in files
    }
    return dict(sorted(names.items()))


def imported(file: Path, known: dict[str, Path]) -> set[str]:
    """The modules of ours that a file imports, wherever in it: inside functions and under TYPE_CHECKING too."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= inner if inner & set(known) else {node.module}
    return names & set(known)


def faults(root: Path) -> list[str]:
    """Every import against the order and every circle, each as a sentence."""
    known = modules(root)
    graph = {name: imported(file, known) - {name} for name, file in known.items()}
    found = []
    for name, others in graph.items():
        for other in sorted(others):
            mine, its = name.split(".")[0], other.split(".")[0]
            if mine != its and RANK[its] >= RANK[mine]:
                found.append(f"{name} imports {other}, which comes after it or stands beside it")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append(f"a circle: {' → '.join(error.args[1])}")
    return found


def test_the_root_holds_the_commands_and_what_all_share():
    there = {path.stem for path in ROOT.glob("*.py")}
    assert there == COMMANDS | {"datasets", "model", "studies"}
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == set(RANK) - there


def test_imports_run_one_way():
    assert faults(ROOT) == []


@pytest.mark.parametrize(
    ("module", "line", "said"),
    [
        ("scans/read.py", "import model", "scans.read imports model"),
        (
            "diagnosis/gate.py",
            "def late():\n    from reports import wording",
            "diagnosis.gate imports reports.wording",
        ),
        ("networks/base.py", "from networks.forward import Forward", "a circle"),
    ],
)
def test_an_import_against_the_order_is_found(tmp_path, module, line, said):
    for file in modules(ROOT).values():
        copy = tmp_path / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text(encoding="utf-8") + (f"\n{line}\n" if file == ROOT / module else ""))
    assert any(said in fault for fault in faults(tmp_path))


@pytest.mark.parametrize("name", modules(ROOT))
def test_a_module_says_what_it_holds_and_can_be_read_in_one_sitting(name):
    text = modules(ROOT)[name].read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring and docstring.splitlines()[0].endswith((".", ":", ";", ","))
    assert len(text.splitlines()) <= 450


def test_every_module_has_its_test_file_where_one_would_look_for_it():
    wanted = {
        (ROOT / "tests" / file.relative_to(ROOT)).with_name(f"test_{file.stem}.py")
        for file in modules(ROOT).values()
        if file.stem != "__init__"
        and str(file.relative_to(ROOT)) not in {name for names in TOGETHER.values() for name in names}
    }
    assert sorted(str(file.relative_to(ROOT)) for file in wanted if not file.is_file()) == []
    assert [name for name in TOGETHER if not (ROOT / name).is_file()] == []
    mirrored = {file for name in RANK for file in (ROOT / "tests" / name).rglob("test_*.py")}
    assert sorted(str(file.relative_to(ROOT)) for file in mirrored - wanted) == []


PACKAGES = sorted(
    str(path.parent.relative_to(ROOT)) for name in RANK for path in (ROOT / name).rglob("__init__.py")
)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_what_it_may_import(package):
    docstring = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8")))
    assert docstring and "May import" in docstring
