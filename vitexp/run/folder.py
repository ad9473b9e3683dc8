"""The run folder: what is in it, its state, and how a later command finds it again.

`run.json` is the run's identity card; every write of it is atomic. A process holds a lock on the folder while it
works there, so a run that says `running` with nobody holding the lock was killed. No torch here: `vitexp list runs`
answers at once.
"""

import logging
import os
import platform
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from vitexp.config.command import naming_resources
from vitexp.config.compose import register, to_yaml
from vitexp.config.untrusted import read_rules
from vitexp.errors import CheckpointError, ConfigError, Ending, ResourceError, behind, ending
from vitexp.files import read_json, write_json, write_text
from vitexp.machine.cores import usable_cores
from vitexp.machine.rank import is_first, meeting

log = logging.getLogger("vitexp")
# The configuration with its interpolations, so that another verb can change one key and what depends on it follows.
RULES = "rules.yaml"
# Where the further processes of a distributed run find the folder that the first one has made.
_SHARED = "VITEXP_RUN_FOLDER"
_WAIT_S = 120.0
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "numpy", "vitexp")


class Run:
    """One run folder. `record` mirrors run.json; `update` writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record: dict[str, Any] = {}
        self._lock: FileLock | None = None
        self.note: Path | None = None  # where processes that something else has started find this folder

    @property
    def name(self) -> str:
        """Name of the folder, as `run=` takes it."""
        return self.path.name

    @property
    def names(self) -> list[str]:
        """The names that `run=` finds it by: the folder's, and the one that `name=` gave it."""
        given = self.record.get("name")
        return [self.name, given] if given else [self.name]

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def state(self) -> str:
        """running, done, failed or interrupted; a run whose process is gone is interrupted."""
        state = str(self.record.get("state", "failed"))
        return "interrupted" if state == "running" and not self.is_locked() else state

    def update(self, **fields: Any) -> None:
        """Change fields of run.json, atomically."""
        self.record.update(fields)
        if is_first():
            write_json(self.path / "run.json", self.record)

    def acquire(self) -> None:
        """Hold the folder for this process.

        Raises:
            ConfigError: another process works in it.
            CheckpointError: a file in it is a link, so that writing to it would change what is elsewhere.
        """
        if not is_first():
            return
        for path in self.path.rglob("*"):
            if path.is_symlink():
                raise CheckpointError(f"{path} is a link, and a run writes to its own files only; remove it or copy it")
        self._lock = FileLock(self.path / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            holder = f"process {self.record.get('pid')} on {self.record.get('host')}"
            raise ConfigError(f"run {self.name} is in use by {holder}; wait for it or stop it first") from None

    def release(self) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        if self.note is not None:
            self.note.unlink(missing_ok=True)

    def is_locked(self) -> bool:
        """Whether a process works in the folder now."""
        if self._lock is not None:
            return True
        if not (self.path / ".lock").exists():
            return False
        probe = FileLock(self.path / ".lock")
        try:
            probe.acquire(timeout=0)
        except (Timeout, PermissionError):
            return True
        probe.release()
        return False

    def config(self) -> DictConfig:
        """The configuration that the run was started with, its interpolations alive; never trusted by its own word."""
        file = self.path / RULES
        if not file.is_file():
            raise CheckpointError(f"{self.path} has no {RULES}, so it is no run of vitexp; `vitexp list runs`")
        register()
        return read_rules(file)

    def keep_config(self, cfg: DictConfig) -> None:
        """Make this the run's configuration, so that a later resume goes on with what an earlier one has changed."""
        if not is_first():
            return
        resolved: Any = OmegaConf.to_container(cfg, resolve=True)
        write_text(self.path / "config.yaml", to_yaml(DictConfig(resolved)))
        write_text(self.path / RULES, OmegaConf.to_yaml(cfg))


def create(cfg: DictConfig, *, argv: Sequence[str], overrides: Sequence[str], folder: Path | None = None) -> Run:
    """Make the folder of a new run, hold it, and write what is known at the start.

    Args:
        cfg: the whole configuration; written resolved.
        argv: the command as typed.
        overrides: the overrides in canonical form, one a line in overrides.txt.
        folder: where, for the job of a sweep; else under `outputs/<date>/`.

    Raises:
        ConfigError: `outputs` is a file.
        ResourceError: the place cannot be written to.
    """
    if not is_first():
        return open_run(_of_the_first(cfg))
    path = folder or _new_path(cfg)
    try:
        path.mkdir(parents=True, exist_ok=folder is not None)
        (path / "checkpoints").mkdir(exist_ok=True)
        (path / "plots").mkdir(exist_ok=True)
        run = Run(path)
        run.keep_config(cfg)
        write_text(path / "overrides.txt", "".join(f"{line}\n" for line in overrides))
        run.acquire()
        run.update(**_identity(cfg, argv), state="running")
        run.note = _tell_the_others(cfg, path.resolve())
        point_last(Path(cfg.outputs), path)
    except OSError as error:
        if isinstance(error, FileExistsError | NotADirectoryError) and not Path(cfg.outputs).is_dir():
            raise ConfigError(f"{cfg.outputs} is not a folder; choose outputs=<folder>") from None
        raise ResourceError(f"cannot write to {path}: {error.strerror}; free it or choose outputs=<folder>") from error
    return run


def _tell_the_others(cfg: DictConfig, path: Path) -> Path | None:
    """The processes that Lightning starts from here inherit the folder; those that are there already read this note."""
    os.environ[_SHARED] = str(path)
    name = meeting()
    note = Path(cfg.outputs) / f".{name}" if name is not None else None
    if note is not None:
        write_text(note, str(path))
    return note


def _of_the_first(cfg: DictConfig) -> Path:
    if _SHARED in os.environ:
        return Path(os.environ[_SHARED])
    note, end = Path(cfg.outputs) / f".{meeting()}", time.monotonic() + _WAIT_S
    while not note.exists():
        if time.monotonic() > end:
            raise ResourceError(f"the first process of this run made no folder under {cfg.outputs} in {_WAIT_S:.0f} s")
        time.sleep(0.05)
    return Path(note.read_text())


def _new_path(cfg: DictConfig) -> Path:
    now = datetime.now()
    label = cfg.name or "-".join(str(cfg.chosen[group]) for group in ("model", "data", "regime"))
    if not re.fullmatch(r"[\w.+-]+", label):
        raise ConfigError(f"name={label} cannot name a folder; use letters, digits and . _ + -")
    return Path(cfg.outputs) / f"{now:%Y-%m-%d}" / f"{now:%H%M%S}-{label}-{secrets.token_hex(2)}"


def _identity(cfg: DictConfig, argv: Sequence[str]) -> dict[str, Any]:
    commit, dirty = git_state()
    return {
        "schema": 1,
        "argv": ["vitexp", *argv],
        "name": cfg.name,
        "chosen": OmegaConf.to_container(cfg.chosen),
        "seed": cfg.seed,
        "epochs": cfg.epochs,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "duration_s": 0.0,
        "metrics": {},
        "git_commit": commit,
        "git_dirty": dirty,
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "hardware": hardware(),
        "pid": os.getpid(),
        "host": platform.node(),
    }


def hardware() -> dict[str, Any]:
    """The machine, without asking torch: processor, cores this process may use, system."""
    names = [platform.processor() or platform.machine()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = re.findall(r"model name\s*: (.+)", cpuinfo.read_text()) or names
    return {"cpu": names[0], "cores": usable_cores(), "system": platform.platform()}


def git_state() -> tuple[str | None, bool | None]:
    """Commit of the code that runs and whether it has changes, or (None, None) outside a checkout."""
    here = Path(__file__).resolve().parents[1]
    if not (here.parent / ".git").exists():
        return None, None
    command = ["git", "-C", str(here), "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None, None
    commit = re.search(r"# branch\.oid (\w+)", text)
    return (commit.group(1) if commit else None), any(not line.startswith("#") for line in text.splitlines())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def point_last(outputs: Path, path: Path) -> None:
    """Make `outputs/last` name `path`, atomically."""
    link = outputs / f".last-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(path, outputs))
    os.replace(link, outputs / "last")


def open_run(path: Path) -> Run:
    """The run in a folder, read from its run.json."""
    run = Run(path.resolve())
    file = path / "run.json"
    try:
        run.record = read_json(file, dict, error=CheckpointError, advice="copy the run again, or remove its folder")
    except FileNotFoundError:
        raise CheckpointError(f"{path} holds no run (no run.json); `vitexp list runs` shows what there is") from None
    return run


def all_runs(outputs: Path) -> list[Run]:
    """Every run under `outputs`, oldest first; folders without a readable run.json are passed over."""
    found = []
    for file in sorted(_run_files(outputs)):
        try:
            found.append(open_run(file.parent))
        except CheckpointError:
            continue
    return sorted(found, key=lambda run: str(run.record.get("started", "")))


def _run_files(outputs: Path) -> Iterable[Path]:
    yield from outputs.glob("[0-9]*/*/run.json")
    yield from outputs.glob("sweeps/*/*/run.json")


def find(reference: str, outputs: Path) -> Run:
    """The run that `reference` means: `last`, a path, its folder's name, the `name=` it was given, or a unique prefix.

    Raises:
        CheckpointError: none or several match; the message lists the candidates.
    """
    if reference == "last":
        link = outputs / "last"
        if link.is_dir():
            return open_run(link)
        runs = all_runs(outputs)
        if runs:
            return runs[-1]
        raise CheckpointError(f"run=last: no run under {outputs.resolve()} yet; train one with `vitexp`")
    if Path(reference).is_dir():
        return open_run(Path(reference))
    runs = all_runs(outputs)
    exact = [run for run in runs if reference in run.names]
    matching = exact or [run for run in runs if any(name.startswith(reference) for name in run.names)]
    if len(matching) == 1:
        return matching[0]
    if not matching:
        newest = ", ".join(run.name for run in runs[:-6:-1]) or "none"
        raise CheckpointError(f"run={reference} matches no run under {outputs}; the newest are: {newest}")
    names = ", ".join(run.name for run in matching[-5:])
    raise CheckpointError(f"run={reference} matches {len(matching)} runs: {names}; type more of the name or its path")


def _record(run: Run, end: Ending, duration_s: float) -> None:
    """Write how the work ended; a disk that is full by then does not stand in the way of what it ended for."""
    try:
        run.update(**vars(end), duration_s=duration_s)
    except OSError as error:
        reason = f"cannot write {run.path / 'run.json'}: {error.strerror}"
        if end.state == "done":
            raise ResourceError(f"{reason}; free space there, then `vitexp resume run={run.name}`") from error
        print(f"vitexp: {reason}", file=sys.stderr)


@contextmanager
def working(run: Run, cfg: DictConfig) -> Iterator[None]:
    """Record in run.json how the work in the folder ends, with the full traceback in log.txt, and let go of it.

    Memory or disk that gave out is named before, so that it is in the record, too.
    """
    start, before = time.perf_counter(), float(run.record.get("duration_s", 0.0))
    end = Ending()
    with _logging(run.path / "log.txt"):
        log.info("begun by process %d on %s", os.getpid(), platform.node())
        try:
            with naming_resources(cfg):
                yield
        except BaseException as error:
            stopped, end = behind(error), ending(error)
            if stopped is not error:
                log.exception("the run failed" if stopped is None else "on top of the interrupt")
            if stopped is not None:
                stopped.in_run = True
                raise stopped from None
            raise
        finally:
            log.info("ended: %s", end.state)
            try:
                _record(run, end, round(before + time.perf_counter() - start, 3))
            finally:
                run.release()


@contextmanager
def _logging(file: Path) -> Iterator[None]:
    """Write what vitexp says and what Python warns of to a file besides."""
    handler, root, level = logging.FileHandler(file), logging.getLogger(), log.level
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    log.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        log.setLevel(level)
        root.removeHandler(handler)
        handler.close()
