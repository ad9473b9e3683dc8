"""Options and code from outside vitexp: where they are found, and whose code is trusted.

Options stand in folders laid out as conf/ is: those of --config-dir, and conf/ of each installed package with an entry
point in the group `vitexp.conf`. Code is called if it is installed so, or if the user has named its package: in
`trusted = ["mynet"]` of the settings file, or of the table [tool.vitexp] in the project's pyproject.toml. One beside
weights or a run is not read, because it may have come with them.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vitexp.errors import ConfigError

GROUP = "vitexp.conf"
# Folders of trusted code beside options: processes that start from this one, such as a sweep's jobs, need them too.
CODE = "VITEXP_CODE"
# What comes from others and may bring a pyproject.toml along.
_BROUGHT = (".safetensors", ".ckpt", ".pth", ".pt", ".npz", ".bin", "run.json", "rules.yaml")


def settings_file() -> Path:
    """The user's own settings, in $XDG_CONFIG_HOME or ~/.config."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "vitexp" / "settings.toml"


def project_file() -> Path | None:
    """The nearest pyproject.toml from the working directory up to the top of its repository; None where none counts.

    The search ends at a folder of another owner, as /tmp is, and at one with weights or a run in it.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if folder.stat().st_uid != here.stat().st_uid or any(path.name.endswith(_BROUGHT) for path in folder.iterdir()):
            return None
        if (folder / "pyproject.toml").is_file():
            return folder / "pyproject.toml"
        if (folder / ".git").exists():
            return None
    return None


def trusted() -> list[str]:
    """Packages, modules and single targets whose code may be called, besides vitexp's own.

    Raises:
        ConfigError: one of the two files cannot be read.
    """
    project = project_file()
    named = [*_named(settings_file()), *(_named(project, "tool", "vitexp") if project else ())]
    return list(dict.fromkeys([*named, *installed()]))


def _named(file: Path, *tables: str) -> list[str]:
    import tomllib

    try:
        content: Any = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read ({error}); vitexp looks there for trusted code: mend it") from error
    for table in tables:
        content = content.get(table, {})
    names = content.get("trusted", [])
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip(".") for name in names):
        raise ConfigError(f'trusted = {names!r} in {file} is no list of names; write trusted = ["mynet"]')
    return names


def installed() -> dict[str, Path]:
    """Package -> its folder of options, for each installed package that brings some.

    Raises:
        ConfigError: an entry point without such a folder.
    """
    return _installed(tuple(sys.path))


@cache
def _installed(path: tuple[str, ...]) -> dict[str, Path]:
    infos = (info for folder in path for info in Path(folder).glob("*-info/entry_points.txt"))
    if not any(f"[{GROUP}]" in info.read_text(encoding="utf-8") for info in infos):
        return {}
    from importlib.metadata import entry_points  # as long to import as all else that help needs from the library

    found = {}
    for point in entry_points(group=GROUP):
        spec = find_spec(point.module)
        folder = Path(next(iter(spec.submodule_search_locations or ()), ""), "conf") if spec else Path("conf")
        if not folder.is_absolute() or not folder.is_dir():
            raise ConfigError(
                f'the entry point {point.name} = "{point.value}" in {GROUP} names no package with a folder conf/ in it;'
                f" add {point.module}/conf, or uninstall {point.dist.name if point.dist else point.name}"
            )
        found[point.module] = folder.resolve()
    return found


def folders(config_dirs: Iterable[str | Path]) -> list[Path]:
    """The folders of options besides vitexp's own: those of --config-dir, then those of installed packages.

    Raises:
        ConfigError: one of --config-dir is no folder.
    """
    given = [Path(folder).expanduser().resolve() for folder in config_dirs]
    for folder in given:
        if not folder.is_dir():
            raise ConfigError(f"--config-dir {folder} is not a folder; give one that holds model/, data/, ... options")
    return list(dict.fromkeys([*given, *installed().values()]))


def find_code(config_dirs: Iterable[Path], *, trust: bool) -> None:
    """Let the trusted code beside options be imported, here and in processes that start from here.

    Such a folder comes last in the search, so that nothing in it hides an installed module.
    """
    names = {name.partition(".")[0] for name in trusted()}
    found = [str(folder) for folder in config_dirs if trust or names & {path.stem for path in folder.iterdir()}]
    before = os.environ.get(CODE, "").split(os.pathsep)
    os.environ[CODE] = os.pathsep.join(dict.fromkeys(filter(None, [*before, *found])))
    _extend_path()


def _extend_path() -> None:
    sys.path += [folder for folder in os.environ.get(CODE, "").split(os.pathsep) if folder and folder not in sys.path]


def is_trusted(target: str) -> bool:
    """Whether the user has named the package of a target, and it is defined there; or has named the target itself.

    Raises:
        ConfigError: named, and not to be found.
    """
    names = trusted()
    if not any(_within(target, name) for name in names):
        return False
    _extend_path()
    home = getattr(_load(target), "__module__", None)
    return target in names or any(_within(str(home), name) for name in names)


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _load(target: str) -> Callable[..., Any]:
    module, _, name = target.rpartition(".")
    try:
        found = getattr(import_module(module), name, None)
    except (ImportError, SyntaxError, ValueError) as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name and _within(module, error.name)
        way = "give --config-dir the folder that it is in, or install it" if missing else "mend it"
        raise ConfigError(f"_target_={target} is trusted, but importing it fails ({error}); {way}") from error
    if not callable(found):
        raise ConfigError(f"_target_={target} is trusted, and {module} has no class or function {name}; add it")
    return found


def trust_line(name: str) -> str:
    """The line of settings.toml or [tool.vitexp] with one more name."""
    return f"trusted = {json.dumps([*(known for known in trusted() if known not in installed()), name])}"


def how_to_trust(target: str) -> str:
    """The words that a user may type to trust a refused target; empty for names that nobody should trust so."""
    package, names = target.partition(".")[0], trusted()
    if any(_within(target, name) for name in names):
        return f"{package} is trusted, and this is defined elsewhere; name it where it is defined"
    if package in {*sys.stdlib_module_names, "vitexp"} or not all(part.isidentifier() for part in target.split(".")):
        return ""
    _extend_path()
    spec, code = find_spec(package), [folder for folder in os.environ.get(CODE, "").split(os.pathsep) if folder]
    is_theirs = spec is None or any(str(spec.origin).startswith(folder) for folder in code)
    line = trust_line(package if is_theirs else target)
    return (
        f"{package} is not trusted; if it is yours, or you know who wrote it, put the line {line} into"
        f" {settings_file()}, or into [tool.vitexp] of your pyproject.toml; trust=true trusts all, for one command"
    )


def place_outside(error: BaseException) -> str | None:
    """File and line of the trusted code that an error passed through on its way; None if it passed through none."""
    names, found, seen = trusted(), None, set[int]()
    while id(error) not in seen:
        seen.add(id(error))
        for frame, line in traceback.walk_tb(error.__traceback__):
            if any(_within(str(frame.f_globals.get("__name__")), name) for name in names):
                found = f"{frame.f_code.co_filename}, line {line}"
        error = error.__cause__ or error
    return found
