"""The run folder: what is in it, its state, and how a later command finds it again.

`run.json` is the run's identity card; every write of it is atomic. A process holds a lock on the folder while it
works there, so a run that says `running` with nobody holding the lock was killed. A run may be a stranger's: all that
is read and written here goes through a `Folder`, and what is read is a `RunRecord` or an error. No torch here:
`vitexp list runs` answers at once.
"""

import logging
import os
import platform
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vitexp.config.command import naming_resources
from vitexp.config.compose import to_yaml
from vitexp.config.stored import stored
from vitexp.errors import CheckpointError, ConfigError, Ending, ResourceError, behind, ending
from vitexp.files.folder import Folder
from vitexp.files.lock import Lock
from vitexp.files.record import RunRecord, parse, read_record
from vitexp.machine.rank import is_first, meeting
from vitexp.run.identity import identity

log = logging.getLogger("vitexp")
# The configuration with its interpolations, so that another verb can change one key and what depends on it follows.
RULES = "rules.yaml"
# Where the further processes of a distributed run find the folder that the first one has made.
_SHARED = "VITEXP_RUN_FOLDER"
_WAIT_S = 120.0
_REASON = 10_000  # characters of it, at most, that the record keeps


class Run:
    """One run folder. `record` mirrors run.json; `update` writes it."""

    def __init__(self, folder: Folder | Path) -> None:
        self.folder = folder if isinstance(folder, Folder) else Folder(folder)
        self.record: RunRecord = {}
        self._lock = Lock(self.folder, ".lock")
        self.note: str | None = None  # of processes that something else has started: the file that names this folder

    @property
    def path(self) -> Path:
        """The path of the folder."""
        return self.folder.path

    @property
    def name(self) -> str:
        """Name of the folder, as `run=` takes it."""
        return self.folder.name

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
        state = self.record.get("state", "failed")
        return "interrupted" if state == "running" and not self._lock.is_held() else state

    def require(self, *keys: str) -> None:
        """Raise CheckpointError unless run.json has these keys."""
        if absent := [key for key in keys if key not in self.record]:
            raise CheckpointError(f"{self.path}/run.json says no {' and no '.join(absent)}; copy the run again")

    def update(self, **fields: object) -> None:
        """Change fields of run.json, atomically."""
        self.record = parse(RunRecord, {**self.record, **fields}, source=f"{self.path}/run.json")
        if is_first():
            self.folder.write_json("run.json", self.record)

    def acquire(self) -> None:
        """Hold the folder for this process.

        Raises:
            ConfigError: another process works in it.
            CheckpointError: a file in it is a link, which the libraries that write there would follow.
        """
        if not is_first():
            return
        self.folder.require_no_links()
        if not self._lock.acquire():
            holder = f"process {self.record.get('pid')} on {self.record.get('host')}"
            raise ConfigError(f"run {self.name} is in use by {holder}; wait for it or stop it first")

    def release(self) -> None:
        """Let go of the folder."""
        self._lock.release()
        if self.note is not None:
            Path(self.note).unlink(missing_ok=True)

    def config(self) -> DictConfig:
        """The configuration that the run was started with, its interpolations alive; never trusted by its own word."""
        try:
            text = self.folder.text(RULES)
        except FileNotFoundError:
            raise CheckpointError(
                f"{self.path} has no {RULES}, so it is no run of vitexp; `vitexp list runs`"
            ) from None
        return stored(text, str(self.path / RULES))

    def keep_config(self, cfg: DictConfig) -> None:
        """Make this the run's configuration, so that a later resume goes on with what an earlier one has changed."""
        if not is_first():
            return
        resolved: Any = OmegaConf.to_container(cfg, resolve=True)
        self.folder.write_text("config.yaml", to_yaml(DictConfig(resolved)))
        self.folder.write_text(RULES, OmegaConf.to_yaml(cfg))


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
    place = Folder(folder.parent, folder.name) if folder is not None else _new_place(cfg)
    path = place.path
    try:
        run = Run(place.made())
        for name in ("checkpoints", "plots"):
            place.sub(name).made()
        run.keep_config(cfg)
        place.write_text("overrides.txt", "".join(f"{line}\n" for line in overrides))
        run.acquire()
        chosen: Any = OmegaConf.to_container(cfg.chosen)
        run.update(chosen=chosen, name=cfg.name, seed=cfg.seed, epochs=cfg.epochs, **identity(argv), state="running")
        run.note = _tell_the_others(cfg, path.resolve())
        point_last(Path(cfg.outputs), path)
    except OSError as error:
        if isinstance(error, FileExistsError | NotADirectoryError) and not Path(cfg.outputs).is_dir():
            raise ConfigError(f"{cfg.outputs} is not a folder; choose outputs=<folder>") from None
        raise ResourceError(f"cannot write to {path}: {error.strerror}; free it or choose outputs=<folder>") from error
    return run


def _tell_the_others(cfg: DictConfig, path: Path) -> str | None:
    """The processes that Lightning starts from here inherit the folder; those that are there already read this note."""
    os.environ[_SHARED] = str(path)
    name = meeting()
    if name is None:
        return None
    place = os.path.relpath(path, Path(cfg.outputs).resolve())
    return str(Folder(Path(cfg.outputs)).write_text(f".{name}", place))


def _of_the_first(cfg: DictConfig) -> Path:
    if _SHARED in os.environ:
        return Path(os.environ[_SHARED])
    outputs, end = Folder(Path(cfg.outputs)), time.monotonic() + _WAIT_S
    while not outputs.has(f".{meeting()}"):
        if time.monotonic() > end:
            raise ResourceError(f"the first process of this run made no folder under {cfg.outputs} in {_WAIT_S:.0f} s")
        time.sleep(0.05)
    return outputs.sub(*Path(outputs.text(f".{meeting()}")).parts).path


def _new_place(cfg: DictConfig) -> Folder:
    now = datetime.now()
    label = cfg.name or "-".join(str(cfg.chosen[group]) for group in ("model", "data", "regime"))
    if not re.fullmatch(r"[\w.+-]{1,150}", label) or len(label.encode()) > 150:
        raise ConfigError(f"name={label} cannot name a folder; use letters, digits and . _ + -, at most 150")
    return Folder(Path(cfg.outputs), f"{now:%Y-%m-%d}", f"{now:%H%M%S}-{label}-{secrets.token_hex(2)}")


def point_last(outputs: Path, path: Path) -> None:
    """Make `outputs/last` name `path`, atomically; one that is elsewhere is no run that is found here."""
    place = os.path.relpath(path.resolve(), outputs.resolve())
    if not place.startswith(".."):
        link = outputs / f".last-{secrets.token_hex(8)}"
        link.symlink_to(place)
        os.replace(link, outputs / "last")


def open_run(place: Folder | Path) -> Run:
    """The run in a folder, read from its run.json.

    Raises:
        CheckpointError: there is none, or it is not one that vitexp writes.
    """
    run = Run(place if isinstance(place, Folder) else Folder(place.resolve()))
    try:
        run.record = read_record(run.folder, "run.json", RunRecord, advice="copy the run again, or remove its folder")
    except OSError:
        raise CheckpointError(
            f"{run.path} holds no run (no run.json); `vitexp list runs` shows what there is"
        ) from None
    return run


@dataclass(frozen=True)
class Unreadable:
    """A run folder that cannot be read: its place under outputs, and why."""

    place: str
    reason: str


def survey(outputs: Path) -> tuple[list[Run], list[Unreadable]]:
    """Every run under `outputs`, oldest first, and what stands in the place of one and cannot be read."""
    wrecks = list[Unreadable]()
    runs = _opened(_places(Folder(outputs.resolve()), wrecks), wrecks)
    return sorted(runs, key=lambda run: run.record.get("started", "")), wrecks


def runs_in(folder: Folder) -> tuple[list[Run], list[Unreadable]]:
    """The runs in a folder, such as that of a sweep, and what stands in the place of one and cannot be read."""
    wrecks = list[Unreadable]()
    return _opened(_below(folder, wrecks), wrecks), wrecks


def _opened(places: Iterable[Folder], wrecks: list[Unreadable]) -> list[Run]:
    """The runs in those of the folders that have a run.json."""
    runs = list[Run]()
    for place in places:
        try:
            if place.holds("run.json"):
                runs.append(open_run(place))
        except CheckpointError as error:
            wrecks.append(Unreadable("/".join(place.parts), str(error)))
    return runs


def all_runs(outputs: Path) -> list[Run]:
    """Every run under `outputs` that can be read, oldest first."""
    return survey(outputs)[0]


def _places(outputs: Folder, wrecks: list[Unreadable]) -> Iterator[Folder]:
    """The folders that may be those of runs; a link among them, or a name that no run has, goes to `wrecks`."""
    for days in _below(outputs, wrecks, lambda name: name[0].isdigit()):
        yield from _below(days, wrecks)
    for sweep in _below(outputs.sub("sweeps"), wrecks):
        yield from _below(sweep, wrecks)


def _below(folder: Folder, wrecks: list[Unreadable], wanted: Callable[[str], bool] = bool) -> Iterator[Folder]:
    """The folders in a folder whose names are wanted."""
    try:
        found = {name: kind for name, kind in folder.entries().items() if wanted(name) and kind in ("folder", "link")}
    except CheckpointError as error:
        found = {}
        wrecks.append(Unreadable("/".join(folder.parts), str(error)))
    for name, kind in found.items():
        try:
            if kind == "link":
                raise CheckpointError(f"{folder.path / name} is a link; give run= the folder itself, or copy it here")
            yield folder.sub(name)
        except CheckpointError as error:
            wrecks.append(Unreadable("/".join((*folder.parts, name)), str(error)))


def find(reference: str, outputs: Path) -> Run:
    """The run that `reference` means: `last`, a path, its folder's name, the `name=` it was given, or a unique prefix.

    Raises:
        CheckpointError: none or several match, and the message lists the candidates; or it cannot be read.
    """
    if reference == "last":
        return _last(outputs)
    if os.path.isdir(reference):
        return open_run(Path(reference))
    runs, wrecks = survey(outputs)
    exact = [run for run in runs if reference in run.names]
    matching = exact or [run for run in runs if any(name.startswith(reference) for name in run.names)]
    if len(matching) == 1:
        return matching[0]
    if not matching:
        for wreck in wrecks:
            if reference == wreck.place.rpartition("/")[2]:
                raise CheckpointError(wreck.reason)
        newest = ", ".join(run.name for run in runs[:-6:-1]) or "none"
        raise CheckpointError(f"run={reference} matches no run under {outputs}; the newest are: {newest}")
    names = ", ".join(run.name for run in matching[-5:])
    raise CheckpointError(f"run={reference} matches {len(matching)} runs: {names}; type more of the name or its path")


def _last(outputs: Path) -> Run:
    """The run that `outputs/last` names, which is a place under outputs; without such a link the newest one."""
    with suppress(OSError):  # no such link
        target = Path(os.readlink(outputs / "last"))
        if target.is_absolute() or ".." in target.parts:
            raise CheckpointError(f"{outputs / 'last'} leads out of {outputs}, so vitexp did not make it; remove it")
        place = Folder(outputs.resolve(), *target.parts)
        if place.entries():
            return open_run(place)
    if runs := all_runs(outputs):
        return runs[-1]
    raise CheckpointError(f"run=last: no run under {outputs.resolve()} yet; train one with `vitexp`")


def _record(run: Run, end: Ending, duration_s: float) -> None:
    """Write how the work ended; a disk that is full by then does not stand in the way of what it ended for."""
    reason = end.reason[:_REASON] if end.reason is not None else None
    try:
        run.update(state=end.state, exit_code=end.exit_code, reason=reason, duration_s=duration_s)
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
    with _logging(run.folder):
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
def _logging(folder: Folder) -> Iterator[None]:
    """Write what vitexp says and what Python warns of to log.txt besides."""
    with folder.appending("log.txt") as file:
        handler, root, level = logging.StreamHandler(file), logging.getLogger(), log.level
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
