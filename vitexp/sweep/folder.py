"""The folder of a sweep: what was asked, its jobs, how far each one is; and how the same command finds it again.

`sweep.json` holds the sweep's identity, each job's folder its frozen configuration (`job.yaml`) and its state
(`job.json`), written atomically by whoever works on it: the sweep before the job starts and after it ended, the job in
between. Nothing is in memory alone, so a sweep that was killed goes on from its folder. All goes through `Folder`s.
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

from omegaconf import DictConfig, OmegaConf

from vitexp.config.command import VERBS
from vitexp.errors import CheckpointError, ConfigError, ResourceError
from vitexp.files.folder import Folder
from vitexp.files.lock import Lock
from vitexp.files.record import Count, Metrics, Option, Seconds, Text, parse, read_record
from vitexp.sweep.plan import Planned, folder_name

SETTINGS, STATE, FROZEN, OUTPUT = "sweep.json", "job.json", "job.yaml", "output.txt"
# A job in one of these states is not run again.
FINISHED = ("done", "pruned")
FAILED = ("failed", "killed")
_ADVICE = "remove its folder, or add new=true"


class JobRecord(TypedDict):
    """job.json: what a job is, and how far it is."""

    number: Count
    verb: Option
    argv: list[Text]
    overrides: list[Text]
    swept: dict[Option, Text]
    digest: Option
    epochs: Count
    state: Literal["waiting", "running", "done", "pruned", "failed", "killed", "interrupted"]
    exit_code: Count | None
    reason: Text | None
    metrics: Metrics
    attempts: Count
    seconds: Seconds
    trial: NotRequired[Count]
    resumes: NotRequired[bool]
    pid: NotRequired[Count]
    host: NotRequired[Option]
    started: NotRequired[Option]


class SweepRecord(TypedDict):
    """sweep.json: what a sweep is; its jobs are in their folders."""

    schema: Count
    identity: Option
    verb: Option
    argv: list[Text]
    started: NotRequired[Option]
    pid: NotRequired[Count]
    host: NotRequired[Option]


class Job:
    """One job of a sweep: its folder and what its job.json says."""

    def __init__(self, folder: Folder | Path, record: JobRecord | None = None) -> None:
        self.folder = folder if isinstance(folder, Folder) else Folder(folder.parent, folder.name)
        self.record: JobRecord = read_job(self.folder) if record is None else record

    @property
    def path(self) -> Path:
        """The path of its folder."""
        return self.folder.path

    @property
    def number(self) -> int:
        """Its place in the sweep, from 0."""
        return self.record["number"]

    @property
    def swept(self) -> dict[str, str]:
        """The overrides that differ between jobs."""
        return self.record["swept"]

    @property
    def state(self) -> str:
        """waiting, running, done, pruned, failed, killed or interrupted."""
        return self.record["state"]

    @property
    def seconds(self) -> float:
        """The time that its attempts took."""
        return self.record["seconds"]

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
        self.record = read_job(self.folder)

    def update(self, **fields: object) -> None:
        """Change fields of job.json, atomically."""
        self.record = parse(JobRecord, {**self.record, **fields}, source=f"{self.path}/{STATE}")
        self.folder.write_json(STATE, self.record)

    def freeze(self, cfg: DictConfig) -> None:
        """Write the configuration that the job will run with; its output goes to a file of its own."""
        self.folder.write_text(FROZEN, OmegaConf.to_yaml(cfg))
        with self.folder.appending(OUTPUT):
            pass

    def config(self) -> DictConfig:
        """The frozen configuration."""
        cfg = OmegaConf.create(self.folder.text(FROZEN))
        assert isinstance(cfg, DictConfig)
        return cfg

    def lock(self) -> Lock:
        """The lock that the process of the job holds while it works."""
        return Lock(self.folder, ".job.lock")

    def is_busy(self) -> bool:
        """Whether a process works on the job, such as one that a killed sweep left to save itself."""
        return self.lock().is_held()


class Sweep:
    """One sweep: its folder, what sweep.json says, its jobs by number."""

    def __init__(self, folder: Folder, record: SweepRecord) -> None:
        self.folder = folder
        self.record = record
        places = [folder.sub(name) for name, kind in folder.entries().items() if kind != "file" and name[0].isdigit()]
        self.jobs = sorted((Job(place) for place in places if place.holds(STATE)), key=lambda job: job.number)
        self._lock = Lock(folder, ".lock")

    @property
    def path(self) -> Path:
        """The path of its folder."""
        return self.folder.path

    def acquire(self) -> None:
        """Hold the sweep for this process.

        Raises:
            ConfigError: another process runs it.
            CheckpointError: a file in it is a link, which the processes of its jobs would follow.
        """
        self.folder.require_no_links()
        if not self._lock.acquire():
            raise ConfigError(
                f"sweep {self.path.name} is running already (process {self.record.get('pid')} on"
                f" {self.record.get('host')}); wait for it, or add new=true for a second one"
            )

    def release(self) -> None:
        """Let go of it."""
        self._lock.release()

    def update(self, **fields: object) -> None:
        """Change fields of sweep.json, atomically."""
        self.record = parse(SweepRecord, {**self.record, **fields}, source=f"{self.path}/{SETTINGS}")
        self.folder.write_json(SETTINGS, {**self.record, **fields})

    def add(self, planned: Planned, **more: object) -> Job:
        """Freeze a job into a folder of its own; `more` goes into its job.json."""
        number = self.jobs[-1].number + 1 if self.jobs else 0
        record: JobRecord = {
            "number": number,
            "verb": self.record["verb"],
            "argv": self.record["argv"],
            "overrides": list(planned.overrides),
            "swept": planned.swept,
            "digest": planned.digest,
            "epochs": planned.cfg.epochs,
            "state": "waiting",
            "exit_code": None,
            "reason": None,
            "metrics": {},
            "attempts": 0,
            "seconds": 0.0,
        }
        job = Job(self.folder.sub(f"{number}-{folder_name(planned.swept)}").made(), record)
        job.freeze(planned.cfg)
        job.update(**more)
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
        sweeps = Folder(outputs, "sweeps")
        there = sweeps.entries()
        folder = sweeps.sub(next(name for name in names if name not in there)).made()
        sweep = Sweep(folder, {"schema": 1, "identity": identity, "verb": verb, "argv": list(argv)})
        sweep.acquire()
        sweep.update(started=now.astimezone().isoformat(timespec="seconds"))
    except OSError as error:
        raise ResourceError(
            f"cannot write to {outputs}: {error.strerror}; free it or choose outputs=<folder>"
        ) from error
    return sweep


def find_sweep(outputs: Path, identity: str) -> Sweep | None:
    """The newest sweep with this identity, or None."""
    sweeps = Folder(outputs, "sweeps")
    for name in reversed(sweeps.entries()):
        with suppress(CheckpointError, OSError):  # a damaged one is some other sweep, as far as one can tell
            folder = sweeps.sub(name)
            record = read_record(folder, SETTINGS, SweepRecord, advice=_ADVICE)
            if record["identity"] == identity:
                break
    else:
        return None
    return Sweep(folder, record)


def read_job(folder: Folder) -> JobRecord:
    """The content of job.json in the folder of a job.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        record = read_record(folder, STATE, JobRecord, advice=_ADVICE)
    except OSError as error:
        raise CheckpointError(f"{folder.path / STATE} is absent; {_ADVICE}") from error
    if record["verb"] not in VERBS:
        raise CheckpointError(f"{folder.path / STATE}: verb is {record['verb']}, which is none; {_ADVICE}")
    return record
