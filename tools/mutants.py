"""Do the tests notice? Small faults are put into the core one at a time, and each module's own tests run on them.

    python -m tools.mutants [--count N] [--seed N] [--only WORD] [--jobs N] [--known FILE]

A fault is a comparison turned or made strict, plus for minus, `and` for `or`, a `not` left out, a truth value or a
number changed. The sample is drawn over all such places of MODULES by a hash of what is changed: for one seed it
stays the same where the code does. Every fault is tried in a copy of the repository, with the test file that
mirrors the module (or those of TESTS); it lives where those tests pass all the same. What changes nothing that
anybody could see is in ARGUED, with the reason. Last comes the share that was noticed.
"""

import argparse
import ast
import hashlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
    "scoring/calibration.py",
    "scoring/scores.py",
)
MODULES = [file.relative_to(ROOT).as_posix() for pattern in CORE for file in sorted(ROOT.glob(pattern))]
MODULES = [module for module in MODULES if not module.endswith("__init__.py")]
TESTS = {"scans/reader.py": ("tests/scans/test_processes.py",)}  # where no file mirrors the module
FROZEN = "that a record is frozen guards against assignments, and the program makes none"
# What lives and may: the module, a piece of the line, what is changed in it → why no test should mind.
ARGUED: dict[tuple[str, str, str], str] = {
    ("diagnosis/likeness.py", "@dataclass", "True  →  False"): FROZEN,
    ("scoring/scores.py", "@dataclass", "True  →  False"): FROZEN,
    ("diagnosis/likeness.py", "if len(tensor) == 1", "1  →  2"): "the mean of one channel is that channel",
    ("diagnosis/likeness.py", "np.outer((0, -2, -1, 1, 2)", "1  →  2"): "two half steps later reach the same pose",
    ("scans/affine.py", "np.unravel_index(", "3  →  6"): "places below nine fall alike in three rows or in six",
    ("scans/dicom/headers.py", "size: int | None = -1", "1  →  2"): "any negative size reads all",
    ("scans/reader.py", "socket.recv_fds", "1  →  2"): "room for a second descriptor, and one is sent",
    ("server/folder.py", "FAR =", "30  →  60"): "any byte that no process number reaches does",
    ("server/logs.py", "PERIOD =", "10.0  →  20.0"): "a period to taste",
    ("server/uploads.py", "self.patience / 4, 0.05", "0.05  →  0.1"): "how often is looked, to taste",
}
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
    text: str  # of that line
    said: str
    key: str  # of the source line and the change, with a count where a line holds the same twice

    @property
    def argued(self) -> str:
        """Why this fault may live, or nothing."""
        for (module, piece, said), why in ARGUED.items():
            if (module, said) == (self.module, self.said) and piece in self.text:
                return why
        return ""


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
    lines, found, seen = text.splitlines(), [], Counter()
    for place, node in nodes(ast.parse(text)):
        if not hasattr(node, "lineno"):
            continue
        before = ast.unparse(node)
        if turn(node):
            said, line = f"{before}  →  {ast.unparse(node)}", lines[node.lineno - 1].strip()
            seen[line, said] += 1
            key = hashlib.sha256(f"{module}\n{line}\n{said}\n{seen[line, said]}".encode()).hexdigest()[:16]
            found.append(Fault(module, place, node.lineno, line, said, key))
    return found


def with_fault(text: str, fault: Fault) -> str:
    tree = ast.parse(text)
    turn(next(node for place, node in enumerate(ast.walk(tree)) if place == fault.place))
    return ast.unparse(ast.fix_missing_locations(tree))


def passes(copy: Path, module: str, limit: float) -> bool:
    """Whether the module's own tests pass in the copy; a hanging run is ended with all that it started."""
    mirrored = Path("tests") / Path(module).parent / f"test_{Path(module).name}"
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    command += TESTS.get(module, [str(mirrored)])
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


def tried(copy: Path, faults_of: list[Fault]) -> Iterator[tuple[Fault, str]]:
    """Each fault of one module with what became of it."""
    module, start = faults_of[0].module, time.monotonic()
    if not passes(copy, module, 1800):
        raise RuntimeError(f"{module}: its tests fail without any fault; mend them first")
    limit = 30 + SLOWEST * (time.monotonic() - start)
    original = (copy / module).read_text(encoding="utf-8")
    for fault in faults_of:
        (copy / module).write_text(with_fault(original, fault), encoding="utf-8")
        alive = passes(copy, module, limit)
        (copy / module).write_text(original, encoding="utf-8")
        yield fault, "LIVED" if alive else "noticed"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100, help="faults to try (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (%(default)s)")
    parser.add_argument("--only", default="", metavar="WORD", help="only modules whose path holds this")
    parser.add_argument("--jobs", type=int, default=1, help="faults at a time, each in its own copy (%(default)s)")
    parser.add_argument(
        "--known",
        type=Path,
        metavar="FILE",
        help="what was noticed is kept here and not tried again by the next run",
    )
    options = parser.parse_args(argv)
    places = [fault for module in MODULES if options.only in module for fault in faults(module)]
    if not places:
        parser.error(f"--only {options.only}: none of {', '.join(MODULES)}")
    places.sort(key=lambda fault: hashlib.sha256(f"{options.seed} {fault.key}".encode()).digest())
    sample = sorted(places[: options.count], key=lambda fault: (fault.module, fault.line))
    known = options.known.read_text().split() if options.known and options.known.exists() else []
    outcomes: Counter[str] = Counter()
    by_module: dict[str, list[Fault]] = {}
    for fault in sample:
        if fault.key in known:
            outcomes["noticed"] += 1
        elif fault.argued:
            outcomes["argued"] += 1
            print(f"argued  {fault.module}:{fault.line}  {fault.said}: {fault.argued}", flush=True)
        else:
            by_module.setdefault(fault.module, []).append(fault)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(options.jobs):
            copies.put(Path(folder) / f"copy{number}")
            shutil.copytree(ROOT, Path(folder) / f"copy{number}", ignore=shutil.ignore_patterns(*LEFT_OUT))

        def work(faults_of: list[Fault]) -> None:
            copy = copies.get()
            try:
                for fault, outcome in tried(copy, faults_of):
                    outcomes[outcome] += 1
                    print(f"{outcome:7} {fault.module}:{fault.line}  {fault.said[:150]}", flush=True)
                    if outcome == "noticed" and options.known:
                        with options.known.open("a", encoding="utf-8") as file:
                            file.write(f"{fault.key}\n")
            finally:
                copies.put(copy)

        try:
            list(pool.map(work, by_module.values()))
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 2
    print(
        f"{outcomes['noticed']} of {len(sample)} faults noticed, {outcomes['argued']} argued, "
        f"{outcomes['LIVED']} lived ({len(places):,} places, seed {options.seed})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
