"""Do the tests notice? Small faults are put into the core one at a time, and each module's own tests run on them.

    python -m tools.mutants [--count N] [--seed N] [--only WORD]

A fault is a comparison turned or made strict, plus for minus, `and` for `or`, a `not` left out, a truth value or a
number changed. The sample is drawn over all such places of MODULES, the same for a seed. Every fault is tried in a
copy of the repository, with the test file that mirrors the module; it lives where those tests pass all the same.
What lived is printed line by line, then the share that was noticed.
"""

import argparse
import ast
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE = (  # readers, gate, server, splits, scores; not what only draws or words
    "scans/**/*.py",
    "diagnosis/gate.py",
    "diagnosis/likeness.py",
    "server/[!pv]*.py",
    "server/payloads.py",
    "data/cases.py",
    "data/leaks.py",
    "data/splits.py",
    "learning/calibration.py",
    "learning/scoring.py",
)
MODULES = [file.relative_to(ROOT).as_posix() for pattern in CORE for file in sorted(ROOT.glob(pattern))]
MODULES = [module for module in MODULES if not module.endswith("__init__.py")]
TURNED: dict[type, type] = {
    ast.Lt: ast.GtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
LEFT_OUT = (".git", ".venv", ".ruff_cache", ".pytest_cache", "__pycache__", "runs", ".cache")
SLOWEST = 8.0  # times the time of the untouched tests, after which a fault counts as noticed: it hangs


@dataclass(frozen=True)
class Fault:
    module: str
    place: int  # among the nodes of the module's tree, in the order of ast.walk
    line: int
    said: str


def nodes(tree: ast.Module) -> Iterator[tuple[int, ast.AST]]:
    """The nodes that run: no annotations, no texts, with their place in the tree."""
    silent: set[int] = set()
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            if isinstance(part := getattr(node, field, None), ast.AST):
                silent |= {id(inner) for inner in ast.walk(part)}
        if isinstance(node, ast.JoinedStr | ast.Raise):
            silent |= {id(inner) for inner in ast.walk(node)}
    yield from ((place, node) for place, node in enumerate(ast.walk(tree)) if id(node) not in silent)


def turn(node: ast.AST) -> bool:
    """Change a node into its fault where it can have one."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in TURNED:
        node.ops[0] = TURNED[type(node.ops[0])]()
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in TURNED:
        node.op = TURNED[type(node.op)]()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        node.op, node.operand = ast.Not(), ast.UnaryOp(ast.Not(), node.operand)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        node.value = not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        node.value = 2 * node.value if node.value not in (0, 1) else node.value + 1
    else:
        return False
    return True


def faults(module: str) -> list[Fault]:
    text = (ROOT / module).read_text(encoding="utf-8")
    found = []
    for place, node in nodes(ast.parse(text)):
        if not hasattr(node, "lineno"):
            continue
        before = ast.unparse(node)
        if turn(node):
            found.append(Fault(module, place, node.lineno, f"{before}  →  {ast.unparse(node)}"))
    return found


def with_fault(fault: Fault) -> str:
    tree = ast.parse((ROOT / fault.module).read_text(encoding="utf-8"))
    turn(next(node for place, node in enumerate(ast.walk(tree)) if place == fault.place))
    return ast.unparse(ast.fix_missing_locations(tree))


def passes(copy: Path, module: str, limit: float) -> bool:
    """Whether the module's own tests pass in the copy; a hanging run is ended with all that it started."""
    package, name = Path(module).parent, Path(module).name
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    command += [str(Path("tests") / package / f"test_{name}")]
    with subprocess.Popen(
        command, cwd=copy, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as run:
        try:
            return run.wait(limit) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100, help="faults to try (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (%(default)s)")
    parser.add_argument("--only", default="", metavar="WORD", help="only modules whose path holds this")
    options = parser.parse_args(argv)
    places = [fault for module in MODULES if options.only in module for fault in faults(module)]
    if not places:
        parser.error(f"--only {options.only}: none of {', '.join(MODULES)}")
    sample = random.Random(options.seed).sample(places, min(options.count, len(places)))
    sample.sort(key=lambda fault: (fault.module, fault.line))
    lived, seconds = [], {}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
        for number, fault in enumerate(sample, 1):
            if fault.module not in seconds:
                start = time.monotonic()
                if not passes(copy, fault.module, 1800):
                    print(f"{fault.module}: its tests fail without any fault; mend them first", file=sys.stderr)
                    return 2
                seconds[fault.module] = time.monotonic() - start
            original = (copy / fault.module).read_text(encoding="utf-8")
            (copy / fault.module).write_text(with_fault(fault), encoding="utf-8")
            alive = passes(copy, fault.module, 30 + SLOWEST * seconds[fault.module])
            (copy / fault.module).write_text(original, encoding="utf-8")
            lived += [fault] if alive else []
            told = "LIVED" if alive else "noticed"
            print(f"{number:3} {told:7} {fault.module}:{fault.line}  {fault.said[:150]}", flush=True)
    noticed = len(sample) - len(lived)
    print(f"{noticed} of {len(sample)} faults noticed ({len(places):,} places, seed {options.seed})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
