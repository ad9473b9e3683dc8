"""The table "Where is X" of CONTRIBUTING.md: `python -m tests.contributing` writes today's line ranges into it."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
ROW = re.compile(r"^(\| .+ \| `([\w/.]+)` \| `([^`]+)` \| )([\d–]*)( \|)$", re.M)


def lines_of(file: str, symbol: str) -> str:
    """Lines of a definition (`Order.first_batch`, `HEADLINES`), or of the one line of YAML that begins so.

    Raises:
        LookupError: the file does not say it.
    """
    text = (ROOT / file).read_text()
    if file.endswith(".yaml"):
        found = [number for number, line in enumerate(text.splitlines(), 1) if line.strip().startswith(symbol)]
        if len(found) != 1:
            raise LookupError(f"{file} has {len(found)} lines that begin with {symbol}; name one that is there once")
        return str(found[0])
    node: ast.AST = ast.parse(text)
    for name in symbol.split("."):
        inside = (child for child in ast.iter_child_nodes(node) if name in _names(child))
        if (child := next(inside, None)) is None:
            raise LookupError(f"{file} does not define {symbol}; name where CONTRIBUTING.md should lead now")
        node = child
    assert isinstance(node, ast.stmt)
    return f"{node.lineno}–{node.end_lineno}"


def _names(node: ast.AST) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [getattr(node, "name", ""), *(target.id for target in targets if isinstance(target, ast.Name))]


def refreshed(text: str) -> str:
    """The page with the lines that each symbol has now."""
    return ROW.sub(lambda row: f"{row[1]}{lines_of(row[2], row[3])}{row[5]}", text)


if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text()))
