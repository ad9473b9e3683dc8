"""The folder of a sweep: what was asked, its jobs, how far each one is; and how the same command finds it again.

`sweep.json` holds the sweep's identity, each job's folder its frozen configuration (`job.yaml`) and its state
(`job.json`), written atomically by whoever works on it: the sweep before the job starts and after it ended, the job in
between. Nothing is in memory alone, so a sweep that was killed goes on from its folder.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from vitexp.errors import CheckpointError, ConfigError, ResourceError
from vitexp.files import read_json, write_json
from vitexp.sweep.plan import Planned, folder_name

SETTINGS, STATE, FROZEN = "sweep.json", "job.json", "job.yaml"
# A job in one of these states is not run again.
FINISHED = ("done", "pruned")
FAILED = ("failed", "killed")


class Job:
    """One job of a sweep: its folder and what its job.json says."""

    def __init__(self, path: Path, record: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self.record: dict[str, Any] = dict(record or {})

    @property
    def number(self) -> int:
        """Its place in the sweep, from 0."""
        return int(self.record["number"])

    @property
    def swept(self) -> dict[str, str]:
        """The overrides that differ between jobs."""
        return dict(self.record["swept"])

    @property
    def state(self) -> str:
        """waiting, running, done, pruned, failed, killed or interrupted."""
        return str(self.record["state"])

    @property
    def is_over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.state not in ("waiting", "running")

    @property
    def label(self) -> str:
        """`3 lr=0.001 seed=1`."""
        return " ".join([str(self.number), *(f"{key.rsplit('.', 1)[-1]}={v}" for key, v in self.swept.items())])

    def reload(self) -> None:
        """Read job.json again: the job writes it while it works."""
        self.record = read_state(self.path / STATE)

    def update(self, **fields: object) -> None:
        """Change fields of job.json, atomically."""
        self.record.update(fields)
        write_json(self.path / STATE, self.record)

    def freeze(self, cfg: DictConfig) -> None:
        """Write the configuration that the job will run with."""
        (self.path / FROZEN).write_text(OmegaConf.to_yaml(cfg))

    def config(self) -> DictConfig:
        """The frozen configuration."""
        cfg = OmegaConf.load(self.path / FROZEN)
        assert isinstance(cfg, DictConfig)
        return cfg

    def lock(self) -> FileLock:
        """The lock that the process of the job holds while it works."""
        return FileLock(self.path / ".job.lock")

    def is_busy(self) -> bool:
        """Whether a process works on the job, such as one that a killed sweep left to save itself."""
        probe = self.lock()
        try:
            probe.acquire(timeout=0)
        except (Timeout, PermissionError):
            return True
        probe.release()
        return False


class Sweep:
    """One sweep: its folder, what sweep.json says, its jobs by number."""

    def __init__(self, path: Path, record: Mapping[str, Any]) -> None:
        self.path = path
        self.record = dict(record)
        found = [Job(file.parent, read_state(file)) for file in path.glob(f"*/{STATE}")]
        self.jobs = sorted(found, key=lambda job: job.number)
        self._lock = FileLock(path / ".lock")

    def acquire(self) -> None:
        """Hold the sweep for this process.

        Raises:
            ConfigError: another process runs it.
        """
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(
                f"sweep {self.path.name} is running already (process {self.record.get('pid')} on"
                f" {self.record.get('host')}); wait for it, or add new=true for a second one"
            ) from None

    def release(self) -> None:
        """Let go of it."""
        self._lock.release()

    def update(self, **fields: object) -> None:
        """Change fields of sweep.json, atomically."""
        self.record.update(fields)
        write_json(self.path / SETTINGS, self.record)

    def add(self, planned: Planned, **more: object) -> Job:
        """Freeze a job into a folder of its own; `more` goes into its job.json."""
        number = self.jobs[-1].number + 1 if self.jobs else 0
        job = Job(self.path / f"{number}-{folder_name(planned.swept)}")
        job.path.mkdir(exist_ok=True)
        job.freeze(planned.cfg)
        job.update(
            number=number,
            verb=self.record["verb"],
            argv=self.record["argv"],
            overrides=list(planned.overrides),
            swept=planned.swept,
            digest=planned.digest,
            epochs=planned.cfg.epochs,
            state="waiting",
            exit_code=None,
            reason=None,
            metrics={},
            attempts=0,
            seconds=0.0,
            **more,
        )
        self.jobs.append(job)
        return job

    def add_all(self, jobs: Sequence[Planned]) -> None:
        """Freeze each: in a new folder, or again in the one that has it, so that no file found there is believed."""
        there = {job.record["digest"]: job for job in self.jobs}
        for planned in jobs:
            if planned.digest not in there:
                self.add(planned)
            elif not there[planned.digest].is_busy():
                there[planned.digest].freeze(planned.cfg)


def create_sweep(outputs: Path, *, identity: str, verb: str, argv: Sequence[str]) -> Sweep:
    """The folder of a new sweep, `outputs/sweeps/<date>_<time>`.

    Raises:
        ResourceError: it cannot be made.
    """
    now = datetime.now()
    stem = f"{now:%Y-%m-%d}_{now:%H%M%S}"
    try:
        names = (stem if count == 0 else f"{stem}-{count}" for count in range(1000))
        path = next(outputs / "sweeps" / name for name in names if not (outputs / "sweeps" / name).exists())
        path.mkdir(parents=True)
        sweep = Sweep(path, {"schema": 1, "identity": identity, "verb": verb, "argv": list(argv)})
        sweep.acquire()
        sweep.update(started=now.astimezone().isoformat(timespec="seconds"))
    except OSError as error:
        raise ResourceError(
            f"cannot write to {outputs}: {error.strerror}; free it or choose outputs=<folder>"
        ) from error
    return sweep


def find_sweep(outputs: Path, identity: str) -> Sweep | None:
    """The newest sweep with this identity, or None."""
    for file in sorted(outputs.glob(f"sweeps/*/{SETTINGS}"), reverse=True):
        record = {}
        with suppress(CheckpointError):  # a damaged file is some other sweep's, as far as one can tell
            record = read_state(file)
        if record.get("identity") == identity:
            return Sweep(file.parent, record)
    return None


def read_state(file: Path) -> dict[str, Any]:
    """The content of one of the sweep's JSON files.

    Raises:
        CheckpointError: it is damaged.
    """
    advice = "remove its folder, or add new=true"
    try:
        return read_json(file, dict, error=CheckpointError, advice=advice)
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} is absent; {advice}") from error
