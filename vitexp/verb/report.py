"""`vitexp report run=last`, `vitexp report runs=a,b,c`: write the page of a run, or of several beside each other."""

import os
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from vitexp.config.command import Command
from vitexp.config.compose import compose, flatten, parse, register
from vitexp.config.schema import GROUPS
from vitexp.config.untrusted import parse_rules
from vitexp.errors import CheckpointError, ConfigError, ResourceError, VitexpError
from vitexp.files.folder import Folder
from vitexp.machine.rank import is_first
from vitexp.report.compare_page import ComparedRun, compare_page
from vitexp.report.run_page import run_page
from vitexp.report.screen import say
from vitexp.run.folder import Run, find, runs_in

PAGE = "report.html"


def report(command: Command) -> dict[str, Any]:
    """Write the page and say where it is; `open=true` shows it in the browser.

    Raises:
        ConfigError: neither run= nor runs=, or both.
        CheckpointError: no such run.
    """
    cfg = command.cfg
    if (cfg.run is None) == (cfg.runs is None):
        raise ConfigError("report takes run= for one run or runs= for several; type run=last, or runs=NAME,NAME")
    if cfg.run is not None:
        file = write_run_page(find(cfg.run, Path(cfg.outputs)))
    else:
        file = write_comparison(cfg.runs, Path(cfg.outputs))
    say(f"written: {file.resolve()}", quiet=cfg.quiet)
    if cfg.open:
        webbrowser.open(file.resolve().as_uri())
    return {"file": str(file)}


@contextmanager
def reporting(run: Run) -> Iterator[None]:
    """Write the run's page when the work ends, well or not; a page that cannot be written never hides why it ended."""
    try:
        yield
    finally:
        try:
            if is_first():
                write_run_page(run)
        except (VitexpError, OSError, ValueError) as error:
            say(f"{PAGE} was not written: {error}", quiet=False)


def write_run_page(run: Run) -> Path:
    """report.html in the run's folder."""
    page = run_page(run.folder, run.record, state=run.state, asked=asked(run))
    return _write(run.folder, PAGE, page)


def write_comparison(runs: str, outputs: Path) -> Path:
    """One page for several runs: a sweep's own in its folder, any others' under outputs."""
    if os.path.isdir(runs) and not Folder(Path(runs)).holds("run.json"):
        folder = Folder(Path(runs).resolve())
        found, wrecks = runs_in(folder)
        if not found + wrecks:
            raise CheckpointError(f"runs={runs} is a folder without runs; give a sweep's folder, or names with commas")
        found.sort(key=_number)
        unread = [wreck.reason for wreck in wrecks]
        return _write(folder, PAGE, comparison(found, title=f"Sweep {folder.name}", unread=unread))
    found = [find(name.strip(), outputs) for name in runs.split(",") if name.strip()]
    if len(found) < 2:
        raise ConfigError(f"runs={runs} names fewer than two runs; use run= for one, or separate names by commas")
    return _write(Folder(outputs), "comparison.html", comparison(found, title=f"{len(found)} runs"))


def comparison(runs: Sequence[Run], *, title: str, unread: Sequence[str] = ()) -> str:
    """The page of several runs; those whose configuration cannot be read are named with those `unread`."""
    compared, problems = list[ComparedRun](), list(unread)
    for run in runs:
        try:
            compared.append(_compared(run))
        except CheckpointError as error:
            problems.append(str(error))
    return compare_page(compared, title=title, unread=problems)


def asked(run: Run) -> list[tuple[str, str, str]]:
    """Key, value and default of each override that the run was started with.

    Raises:
        CheckpointError: a line that is no override.
    """
    try:
        lines = run.folder.text("overrides.txt").splitlines()
        overrides = [parse(line) for line in lines if line.strip()]
    except FileNotFoundError:
        return []
    except ConfigError as error:
        raise CheckpointError(f"{run.path}/overrides.txt is damaged ({error}); remove it") from error
    shipped = _shipped(run)
    rows = []
    for override in overrides:
        key, _, value = (override.input_line or "").partition("=")
        default = shipped.chosen.get(key) if key in GROUPS else OmegaConf.select(shipped, key)
        rows.append((key, value, "" if default is None else str(default)))
    return rows


def _shipped(run: Run) -> DictConfig:
    """The configuration that the chosen model, data, ... have without any other override."""
    chosen = run.record.get("chosen", {})
    try:
        return compose([f"{group}={option}" for group, option in chosen.items() if option is not None])
    except ConfigError:  # an option of the user's own folder, or of an older version
        return compose()


def _compared(run: Run) -> ComparedRun:
    register()
    try:
        cfg = parse_rules(run.folder.text("config.yaml"), f"{run.path}/config.yaml")
    except FileNotFoundError:
        raise CheckpointError(f"{run.path} has no config.yaml; copy the run again") from None
    values = {name: OmegaConf.select(cfg, name) for name in flatten(cfg)}
    plain = {name: _plain(value) for name, value in values.items() if not isinstance(value, DictConfig)}
    return ComparedRun(run.name, run.folder, run.state, run.record, plain)


def _plain(value: Any) -> Any:
    return str(OmegaConf.to_container(value)) if isinstance(value, ListConfig) else value


def _number(run: Run) -> tuple[int, str]:
    """Jobs of a sweep in their order: `2-lr=...` before `10-lr=...`."""
    head = run.name.split("-", 1)[0]
    return (int(head) if head.isdecimal() and len(head) < 10 else 0, run.name)


def _write(folder: Folder, name: str, page: str) -> Path:
    try:
        return folder.write_text(name, page)
    except OSError as error:
        file = folder.path / name
        raise ResourceError(f"cannot write {file}: {error.strerror}; free it or choose outputs=<folder>") from error
