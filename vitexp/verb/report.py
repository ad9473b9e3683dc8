"""`vitexp report run=last`, `vitexp report runs=a,b,c`: write the page of a run, or of several beside each other."""

import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from vitexp.config.command import Command
from vitexp.config.compose import compose, flatten, parse, register
from vitexp.config.schema import GROUPS
from vitexp.config.untrusted import read_rules
from vitexp.errors import CheckpointError, ConfigError, ResourceError, VitexpError
from vitexp.files import write_text
from vitexp.machine.rank import is_first
from vitexp.report.compare_page import ComparedRun, compare_page
from vitexp.report.run_page import run_page
from vitexp.report.screen import say
from vitexp.run.folder import Run, find, open_run

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
    page = run_page(run.path, run.record, state=run.state, asked=asked(run))
    return _write(run.path / PAGE, page)


def write_comparison(runs: str, outputs: Path) -> Path:
    """One page for several runs: a sweep's own in its folder, any others' under outputs."""
    folder = Path(runs)
    if folder.is_dir() and not (folder / "run.json").exists():
        found = [open_run(file.parent) for file in sorted(folder.glob("*/run.json"), key=_number)]
        if not found:
            raise CheckpointError(f"runs={runs} is a folder without runs; give a sweep's folder, or names with commas")
        return _write(folder / PAGE, comparison(found, title=f"Sweep {folder.resolve().name}"))
    found = [find(name.strip(), outputs) for name in runs.split(",") if name.strip()]
    if len(found) < 2:
        raise ConfigError(f"runs={runs} names fewer than two runs; use run= for one, or separate names by commas")
    return _write(outputs / "comparison.html", comparison(found, title=f"{len(found)} runs"))


def comparison(runs: Sequence[Run], *, title: str) -> str:
    """The page of several runs."""
    return compare_page([_compared(run) for run in runs], title=title)


def asked(run: Run) -> list[tuple[str, str, str]]:
    """Key, value and default of each override that the run was started with."""
    file = run.path / "overrides.txt"
    if not file.is_file():
        return []
    overrides = [parse(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
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
    cfg = read_rules(run.path / "config.yaml")
    values = {name: OmegaConf.select(cfg, name) for name in flatten(cfg)}
    plain = {name: _plain(value) for name, value in values.items() if not isinstance(value, DictConfig)}
    return ComparedRun(run.name, run.path, run.state, run.record, plain)


def _plain(value: Any) -> Any:
    return str(OmegaConf.to_container(value)) if isinstance(value, ListConfig) else value


def _number(file: Path) -> tuple[int, str]:
    """Jobs of a sweep in their order: `2-lr=...` before `10-lr=...`."""
    name = file.parent.name
    head = name.split("-", 1)[0]
    return (int(head) if head.isdigit() else 0, name)


def _write(file: Path, page: str) -> Path:
    try:
        return write_text(file, page)
    except OSError as error:
        raise ResourceError(f"cannot write {file}: {error.strerror}; free it or choose outputs=<folder>") from error
