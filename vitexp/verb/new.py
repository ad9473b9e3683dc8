"""`vitexp new model|attention|data|regime|analysis NAME`: a part of your own to start from, and its test.

The texts stand in vitexp/templates as they are written, with `$name` and `$Class`; docs/extending.md shows them filled.
"""

import keyword
from collections.abc import Sequence
from pathlib import Path
from string import Template

from vitexp.config.compose import options
from vitexp.config.extensions import settings_file, trust_line, trusted
from vitexp.config.spelling import nearest, one_of
from vitexp.errors import ConfigError, ResourceError

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"
KINDS = ("model", "attention", "data", "regime", "analysis")


def write_new(words: Sequence[str]) -> int:
    """Write the code, the options and the test of a new part into `folder=`, mine if not given, and say what is next.

    Raises:
        ConfigError: no such kind, a name that is none or taken, or a file that is there already.
        ResourceError: the folder cannot be written.
    """
    given = dict(word.split("=", 1) for word in words if "=" in word)
    plain = [word for word in words if "=" not in word]
    if len(plain) != 2 or given.keys() - {"folder"}:
        got = " ".join(words) or "nothing"
        raise ConfigError(f"new takes a kind of part and a name; got {got}; type `vitexp new model mynet`")
    kind, name = plain
    if kind not in KINDS:
        raise ConfigError(f"new {kind} is not known{nearest(kind, KINDS)}; use {one_of(KINDS)}")
    if not name.isidentifier() or keyword.iskeyword(name) or name in options(kind):
        raise ConfigError(
            f"{name} cannot name a {kind}: it is no Python name, or taken; choose another, as in my{kind}"
        )
    folder = Path(given.get("folder", "mine"))
    files = texts(kind, name)
    taken = [folder / path for path in files if (folder / path).exists()]
    if taken:
        raise ConfigError(f"{taken[0]} is there already, and new overwrites nothing; choose another name, or folder=")
    try:
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"cannot write {folder}: {error.strerror}; choose another folder=") from error
    print("\n".join(f"written: {folder / path}" for path in files))
    _print_next(kind, name, folder)
    return 0


def texts(kind: str, name: str) -> dict[str, str]:
    """Path below the folder -> text, of the three files of a part."""
    title = "".join(part.capitalize() for part in name.split("_"))
    paths = {"code": f"{name}.py", "options": f"{kind}/{name}.yaml", "test": f"test_{name}.py"}
    templates = {path: (TEMPLATES / kind / f"{file}.txt").read_text(encoding="utf-8") for file, path in paths.items()}
    return {path: Template(text).substitute(name=name, Class=title) for path, text in templates.items()}


def _print_next(kind: str, name: str, folder: Path) -> None:
    if name not in trusted():
        print(f"trust it once: put the line {trust_line(name)} into {settings_file()}")
    data = "" if kind == "data" else " data=digits"
    print(f"then: vitexp -cd {folder} {kind}={name}{data}\ntest it: pytest {folder}/test_{name}.py")
