"""Mutants: small faults put into a module, one at a time, to see whether its tests notice.

`python tests/mutants.py [--number N] [--seed S] [PATH ...]`; a path is a module or a folder of vitexp/. The tree is
copied once; each mutant is written into the copy and its tests run in a fork of this process, which has imported torch
and the like but nothing of vitexp. A module's tests are tests/<its folder>/test_<its name>.py and those that
tests/mutants.toml names; the whole folder where there are none. The same file lists equivalent mutants, with reasons.
"""

import argparse
import ast
import copy
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ("attention", "layer", "regime", "optim", "data/order.py", "data/multiscale.py", "data/pack", "detection")
CORE = (*CORE, "checkpoint", "analysis", "callback/step_keys.py", "model/navit.py", "files.py")
HEAVY = "torch torchvision pytorch_lightning torchmetrics hydra scipy.optimize safetensors.torch matplotlib.pyplot timm"
PAIRS = "Add Sub, Mult Div, BitAnd BitOr, And Or, Lt LtE, Gt GtE, Eq NotEq, Is IsNot, In NotIn"
SWAPS = {getattr(ast, a): getattr(ast, b) for pair in PAIRS.split(", ") for a, b in (pair.split(), pair.split()[::-1])}
SWAPS |= {ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult}
PASS = ast.parse("pass").body[0]


@dataclass(frozen=True)
class Mutant:
    """A module with one fault; `old` and `new` are its stripped lines, the name that mutants.toml knows it by."""

    line: int
    old: str
    new: str
    source: str


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a module, in the order of its text."""
    text = source.encode()
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in _mutable(ast.parse(source)):
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        first, last = starts[node.lineno - 1], starts[node.end_lineno]
        for changed in _faults(node):
            words = ast.unparse(ast.fix_missing_locations(changed))
            words = f"({words})" if isinstance(changed, ast.BinOp | ast.BoolOp | ast.Compare | ast.UnaryOp) else words
            new = text[:begin] + words.encode() + text[end:]
            lines = new[first : last + len(new) - len(text)]
            yield Mutant(node.lineno, _flat(text[first:last]), _flat(lines), new.decode())


def _flat(text: bytes) -> str:
    return " ".join(text.decode().split())


def _mutable(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes whose faults could be seen: no annotations, decorators, texts of errors or imports for types."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if hasattr(node, "lineno"):
        yield node
    if isinstance(node, ast.Raise | ast.JoinedStr) or (isinstance(node, ast.keyword) and node.arg == "strict"):
        return
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns", "decorator_list", "type_params", "bases"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _mutable(child)


def _faults(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1 if isinstance(value, int) else value * 2 or 1.0)
        case ast.Compare(ops=[operator]) | ast.BinOp(op=operator) | ast.BoolOp(op=operator) if type(operator) in SWAPS:
            swapped = SWAPS[type(operator)]()
            yield _with(node, **({"ops": [swapped]} if isinstance(node, ast.Compare) else {"op": swapped}))
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert(), operand=operand):
            yield operand
        case ast.Call(keywords=keywords):
            for dropped in keywords:
                if dropped.arg != "strict":
                    yield _with(node, keywords=[keyword for keyword in keywords if keyword is not dropped])
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            yield _with(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.Return(value=ast.expr()):
            yield ast.Return(ast.Constant(None))
        case ast.AugAssign(op=operator):
            yield PASS
            if type(operator) in SWAPS:
                yield _with(node, op=SWAPS[type(operator)]())
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Continue() | ast.Break() | ast.Delete():
            yield PASS
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield PASS


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.deepcopy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def tests_of(module: str, named: dict[str, list[str]]) -> list[str]:
    """Test files of a module, by their paths from the root."""
    path = Path(module)
    folder = "tests" / path.parent.relative_to("vitexp")
    own = folder / f"test_{path.stem}.py"
    found = [str(own)] if (ROOT / own).is_file() else []
    return [*found, *named.get(module, named.get(str(path.parent), ()))] or [str(folder)]


def run(tree: Path, tests: list[str], limit: float) -> tuple[str, float]:
    """Outcome of the tests in a fork (passed, failed or stuck), and its seconds."""
    began = time.monotonic()
    child = os.fork()
    if not child:
        os.setsid()
        os.chdir(tree)
        sys.path[0] = os.environ["PYTHONPATH"] = str(tree)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # plugins warn of what they find imported
        log = os.open(tree / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1), os.dup2(log, 2)
        status = 1
        try:
            status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))
        finally:
            os._exit(status)
    while time.monotonic() - began < limit:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return ("failed" if status else "passed"), time.monotonic() - began
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "stuck", limit


def try_module(module: str, tree: Path, options: argparse.Namespace, notes: dict) -> Counter:
    """Counts of what became of a sample of the module's mutants; the survivors are printed."""
    source, tests = (tree / module).read_text(), tests_of(module, notes["tests"])
    outcome, seconds = run(tree, tests, 600)
    if outcome != "passed":
        sys.exit(f"{' '.join(tests)} {outcome} without a mutant:\n{(tree / 'log').read_text()[-2000:]}")
    every = list(mutants(source))
    equivalent = {(note["old"], note["new"]) for note in notes["equivalent"] if note["module"] == module}
    sample = random.Random(f"{options.seed} {module}").sample(every, min(options.number, len(every)))
    print(f"{module}: {len(sample)} of {len(every)} mutants, {' '.join(tests)} ({seconds:.1f} s)", flush=True)
    for old, _ in equivalent - {(mutant.old, mutant.new) for mutant in every}:
        print(f"  mutants.toml names a line that is not there any more: {old}")
    counts = Counter(modules=1, mutants=len(sample))
    for mutant in sorted(sample, key=lambda mutant: mutant.line):
        fate = "equivalent"
        if (mutant.old, mutant.new) not in equivalent:
            write(tree / module, mutant.source)
            outcome, _ = run(tree, tests, 5 * seconds + 20)
            fate = "survived" if outcome == "passed" else "killed"
        if fate == "survived":
            print(f"  {module}:{mutant.line}\n    - {mutant.old}\n    + {mutant.new}", flush=True)
        counts[fate] += 1
    write(tree / module, source)
    return counts


def write(file: Path, source: str) -> None:
    """Write a module; its compiled copy goes, since one of the same second and size would be taken for it."""
    file.write_text(source)
    Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)


def main() -> int:
    """0 when no mutant survives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", default=CORE, help="modules or folders of vitexp/; else the core")
    parser.add_argument("--number", type=int, default=8, help="mutants a module")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    options = parser.parse_args()
    notes = {"tests": {}, "equivalent": []} | tomllib.loads((ROOT / "tests/mutants.toml").read_text())
    paths = [ROOT / "vitexp" / path.removeprefix("vitexp/") for path in options.paths]
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*.py")))]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in HEAVY.split():
        importlib.import_module(name)
    total = Counter()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in ("vitexp", "conf", "tests"):
            shutil.copytree(ROOT / name, tree / name)
        shutil.copy(ROOT / "pyproject.toml", tree)
        for file in files:
            if file.stat().st_size:
                total += try_module(str(file.relative_to(ROOT)), tree, options, notes)
    print(", ".join(f"{total[word]} {word}" for word in ("modules", "mutants", "killed", "equivalent", "survived")))
    return bool(total["survived"])


if __name__ == "__main__":
    sys.exit(main())
