"""The architecture, as a test: who may import whom, no cycles, and the limits on files and functions."""

import ast
import re
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "vitexp"
FILES = sorted(PACKAGE.rglob("*.py"))

# A folder or module of vitexp -> what else of vitexp it may import. `contract`, `errors` and `files`
# are everybody's; benchmarks and the notebook may import anything.
ARROWS = {
    "errors": set(),
    "contract": {"batch"},
    "files": set(),
    "seeding": set(),
    "batch": set(),
    "machine": set(),
    "layer": set(),
    "attention": {"layer"},
    "model": {"attention", "layer", "batch"},
    "detection": set(),
    "data": {"seeding", "detection", "batch", "machine"},
    "regime": {"model", "layer", "attention", "checkpoint"},
    "optim": set(),
    "task": {"optim", "detection"},
    "report": {"machine"},
    "analysis": {"attention", "model", "layer", "report"},
    "config": {"machine"},
    "checkpoint": {"layer"},
    "callback": {"analysis", "batch", "checkpoint", "machine", "report", "seeding", "logger"},
    "logger": {"machine", "report"},
    "build": {"checkpoint", "config", "machine", "seeding"},
    "run": {"build", "callback", "checkpoint", "config", "data", "logger", "machine", "optim", "report", "task"},
    "verb": {
        *("analysis", "batch", "build", "callback", "checkpoint", "config", "data", "logger", "machine", "report"),
        *("run", "task"),
    },
    "sweep": {"config", "machine", "report", "run", "verb"},
    "cli": {"config", "machine", "run", "sweep", "verb"},
}


def imports(file: Path) -> set[str]:
    """Dotted names of the vitexp modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "vitexp":
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if module_file(name) else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "vitexp"}
    return found


def module_file(name: str) -> Path | None:
    path = ROOT / Path(*name.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def part(name: str) -> str:
    """`vitexp.model.vit` -> `model`."""
    return name.split(".")[1] if "." in name else ""


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_imports_follow_the_arrows(file: Path) -> None:
    own = part(module_name(file))
    if own in ARROWS:
        used = {part(name) for name in imports(file)} - {own, "errors", "files", "contract", ""}
        assert used <= ARROWS[own], f"{file} may not import {used - ARROWS[own]}"


def test_no_import_cycle_and_a_shallow_tree() -> None:
    """No cycle of modules; up to the verbs, folders stand at most 7 deep."""
    graph = {module_name(file): imports(file) for file in FILES}
    depth: dict[str, int] = {}

    def visit(name: str, path: tuple[str, ...]) -> int:
        assert name not in path, f"import cycle: {' -> '.join((*path, name))}"
        if name not in depth:
            deepest = (visit(o, (*path, name)) + (part(o) != part(name)) for o in graph.get(name, ()))
            depth[name] = max(deepest, default=1)
        return depth[name]

    deepest = {name: visit(name, ()) for name in graph}
    assert max(value for name, value in deepest.items() if part(name) in ARROWS.keys() - {"sweep", "cli"}) <= 7


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_limits(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= 400, "a file holds one concept"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 50, f"{node.name} is longer than one reads in a sitting"
            assert nesting(node) <= 3, f"{node.name} nests too deep"
            assert node.args.kwarg is None or node.args.kwarg.annotation is not None
            if node.name == "__init__":
                assert len(node.args.args) + len(node.args.kwonlyargs) - 1 <= 12, "a constructor takes at most 12"


def nesting(node: ast.AST) -> int:
    """Depth of nested blocks (if, for, while, with, try, match) under a function."""
    blocks = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match)

    def deepest(current: ast.AST, depth: int) -> int:
        inner = depth
        for child in ast.iter_child_nodes(current):
            if isinstance(child, ast.FunctionDef):
                continue
            is_elif = isinstance(current, ast.If) and isinstance(child, ast.If) and child in current.orelse
            step = isinstance(child, blocks) and not is_elif
            inner = max(inner, deepest(child, depth + step))
        return inner

    return deepest(node, 0)


def test_most_files_are_short() -> None:
    assert median(len(file.read_text().splitlines()) for file in FILES if file.name != "__init__.py") <= 150


def test_init_files_are_empty() -> None:
    filled = [file for file in PACKAGE.glob("*/**/__init__.py") if file.read_text().strip()]
    assert not filled


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_docstrings_begin_with_their_subject(file: Path) -> None:
    questions = {"What", "Which", "Where", "When", "Who", "Whose", "How", "Why"}
    fragments = {"Of", "By", "As", "From", "See", "Not", "Their"}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            first = re.split(r"\W", ast.get_docstring(node) or "")[0]
            assert first not in questions | fragments, f"{getattr(node, 'name', file.name)} begins with {first}"


def test_no_house_for_what_fits_nowhere() -> None:
    assert not [path for path in PACKAGE.rglob("*") if path.stem in {"utils", "common", "misc", "helpers"}]


@pytest.mark.parametrize("group", ["analysis", "attention", "regime"])
def test_one_word_names_config_module_and_test(group: str) -> None:
    for option in set((ROOT / "conf" / group).glob("*.yaml")) - {ROOT / "conf/analysis/none.yaml"}:
        assert (PACKAGE / group / f"{option.stem}.py").is_file()
        assert (ROOT / "tests" / group / f"test_{option.stem}.py").is_file()


def test_a_configuration_is_seen_by_build_and_what_stands_above_it() -> None:
    """Modules below `build` take values; of those beside it, the two that keep configurations of runs know one."""
    above = ("config.", "build", "verb.", "benchmark.", "sweep.", "cli", "notebook", "run.folder", "run.reopen")
    for file in FILES:
        if not module_name(file).startswith(tuple(f"vitexp.{name}" for name in above)):
            names = {node.id for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Name)}
            assert not names & {"DictConfig", "OmegaConf", "cfg"}, f"{file} sees a configuration"


def test_few_things_are_of_any_type() -> None:
    """Parameters, results and variables annotated with nothing but `Any`; the aim is fewer than 100."""
    found = 0
    for node in (node for file in FILES for node in ast.walk(ast.parse(file.read_text()))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            annotations = [node.returns, *(argument.annotation for argument in arguments if argument)]
        else:
            annotations = [node.annotation] if isinstance(node, ast.AnnAssign) else []
        found += sum(isinstance(each, ast.Name) and each.id == "Any" for each in annotations)
    assert found < 185


def test_few_attributes_are_looked_for_by_name() -> None:
    """A capability is a protocol of contract.py, found by `isinstance`."""
    calls = [node for file in FILES for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    named = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id in ("getattr", "hasattr")]
    assert sum(isinstance(call.args[1], ast.Constant) for call in named) < 20


def test_only_build_instantiates() -> None:
    users = [module_name(file) for file in FILES if "instantiate(" in file.read_text()]
    assert users == ["vitexp.build"]


def test_pre_commit_has_the_ruff_of_the_lock() -> None:
    locked = re.search(r"^ruff==(\S+)", (ROOT / "requirements.lock").read_text(), re.M)
    hooks = re.search(r"ruff-pre-commit\n\s+rev: v(.+)$", (ROOT / ".pre-commit-config.yaml").read_text(), re.M)
    assert locked
    assert hooks
    assert locked[1] == hooks[1]


def test_no_unsafe_reader() -> None:
    loads = [module_name(file) for file in FILES if "torch.load(" in file.read_text()]
    assert loads == ["vitexp.checkpoint.read"]
    for file in FILES:
        text = file.read_text()
        for word in ("import pickle", "allow_pickle=True", "weights_only=False", "yaml.load(", "eval(", "exec("):
            assert word not in text.replace(".eval()", "") or word == "eval(", f"{word} in {file}"
