"""Jobs side by side on this machine: one a GPU, or the processor's threads shared out among them.

On Linux each job is forked by multiprocessing's server, which has imported torch once, so that a start costs
milliseconds instead of seconds. That is safe because nothing but imports has happened there: no tensor, no thread, no
CUDA context; each job sets its devices and threads before its first operation. Elsewhere jobs are started afresh.
"""

import atexit
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Self

import vitexp
from vitexp.errors import ConfigError, ResourceError
from vitexp.machine.cores import usable_cores
from vitexp.machine.memory import free_memory
from vitexp.machine.rank import end_with_parent
from vitexp.sweep.folder import Job
from vitexp.sweep.job import run_job

# What a job needs at the least: `slots=auto` starts no more than fit into the memory that is free.
_JOB_BYTES = 2 * 2**30
_FORKS = sys.platform == "linux"
_CONTEXT = multiprocessing.get_context("forkserver") if _FORKS else multiprocessing.get_context("spawn")
_LOST = 255  # multiprocessing's exit code of a process whose server is gone


@dataclass(frozen=True)
class Share:
    """The threads and GPUs of a slot; None is all that there are."""

    threads: int | None
    devices: str | None


def shares(slots: object, *, jobs: int, devices: object, strategy: str) -> list[Share]:
    """One share for each slot.

    Args:
        slots: `slots=` as given: auto or a number.
        jobs: how many there are to run.
        devices: `trainer.devices` of the jobs; a job on several devices has them all.
        strategy: `trainer.strategy` of the jobs.

    Raises:
        ConfigError: `slots=` is neither.
    """
    count = check_slots(slots)
    cores, cards = usable_cores(), visible_devices()
    alone = strategy != "auto" or devices not in ("auto", 1)
    if count is None:
        count = 1 if alone else len(cards) or max(1, min(cores, free_memory() // _JOB_BYTES))
    count = max(1, min(count, jobs))
    if count == 1:
        return [Share(None, None if alone or len(cards) < 2 else cards[0])]
    # One core each at the least; the environment's own limit holds for every job.
    threads = max(1, min(cores // count, int(os.environ.get("OMP_NUM_THREADS") or cores)))
    return [Share(threads, None if alone or not cards else cards[index % len(cards)]) for index in range(count)]


def check_slots(slots: object) -> int | None:
    """The number that `slots=` gives; None for auto. Raises ConfigError if it is neither."""
    if slots == "auto":
        return None
    if not isinstance(slots, int) or isinstance(slots, bool) or slots < 1:
        raise ConfigError(f"slots={slots} is not known; use auto or the number of jobs side by side, as in slots=4")
    return slots


def visible_devices() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; found without CUDA."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1")]
    driver = Path("/proc/driver/nvidia/gpus")
    return [str(index) for index, _ in enumerate(driver.iterdir())] if driver.is_dir() else []


class Slots:
    """The jobs that run: `running` is job by slot."""

    def __init__(
        self, shares: Sequence[Share], *, preload: Sequence[str] = (), work: Callable[[Path], int] = run_job
    ) -> None:
        """Start the server, which imports the modules `preload` before the first job of this process.

        Args:
            shares: one a slot.
            preload: dotted names; no more than a matter of speed.
            work: what the process of a job does with its folder; gives its exit code.
        """
        self._shares, self._work = shares, work
        self._processes: dict[int, BaseProcess] = {}
        self.running: dict[int, Job] = {}
        if _FORKS:
            _start_server(preload)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ask the jobs that still run to save themselves, and wait for them."""
        for job in self.running.values():
            self.signal(job, signal.SIGTERM)
        for process in self._processes.values():
            process.join()

    @property
    def free(self) -> int:
        """Slots without a job."""
        return len(self._shares) - len(self.running)

    def start(self, job: Job) -> None:
        """Run a job in a free slot."""
        slot = next(index for index in range(len(self._shares)) if index not in self.running)
        given = (self._work, job.path.resolve(), self._shares[slot], environment())
        process = _CONTEXT.Process(target=_become, args=given)
        process.start()
        self.running[slot], self._processes[slot] = job, process

    def signal(self, job: Job, signum: int) -> None:
        """Send a signal to the process of a job."""
        process = next(self._processes[slot] for slot, other in self.running.items() if other is job)
        if process.pid is not None and process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signum)

    def poll(self, seconds: float) -> list[tuple[Job, int]]:
        """Jobs that have ended, each with its exit code (minus the signal that killed it); waits at most so long.

        Raises:
            ResourceError: the server is gone.
        """
        connection.wait([process.sentinel for process in self._processes.values()], seconds)
        ended = []
        for slot, process in list(self._processes.items()):
            if process.exitcode == _LOST:
                raise ResourceError(
                    "the process that starts the jobs has ended, for what is said above or for want of memory;"
                    " the same command continues the sweep"
                )
            if process.exitcode is not None:
                ended.append((self.running.pop(slot), process.exitcode))
                self._processes.pop(slot).close()
        return ended


def _start_server(preload: Sequence[str]) -> None:
    """Start it where no file of the working directory can get between the imports."""
    multiprocessing.set_forkserver_preload([*preload, "vitexp.sweep.preload"])
    before = dict(os.environ)
    os.environ.update(environment(), PYTHONSAFEPATH="1")
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


def _become(work: Callable[[Path], int], folder: Path, share: Share, variables: Mapping[str, str]) -> None:
    """Make this process that of a job: its own session, output, devices, threads; it ends with the server.

    `variables` is the environment of the sweep: the server, one for all sweeps of a process, has that of the first.
    """
    os.environ.clear()
    os.environ.update(variables)
    if _FORKS:
        os.setsid()
        end_with_parent()
    sweep = multiprocessing.parent_process()
    if sweep is None or not sweep.is_alive():  # it died before it could be watched
        sys.exit(128 + signal.SIGTERM)
    multiprocessing.set_start_method(None, force=True)  # the workers of the job are started as everywhere
    with open(os.devnull) as nothing, (folder / "output.txt").open("a") as output:
        for source, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(source.fileno(), target)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115  (the job's as long as it lives)
    if share.devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = share.devices
    if share.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(share.threads)
        if "torch" in sys.modules:  # it has read the environment by now
            sys.modules["torch"].set_num_threads(share.threads)
    # The command that Lightning repeats for each further device of the job.
    sys.argv = ["vitexp.sweep.job", str(folder)]
    sys.modules["__main__"].__spec__ = find_spec("vitexp.sweep.job")
    try:
        sys.exit(work(folder))
    finally:
        atexit._run_exitfuncs()


def environment() -> dict[str, str]:
    """This environment, in which a checkout that is not installed is found too."""
    root = Path(vitexp.__file__).resolve().parents[1]
    if "site-packages" in root.parts:
        return dict(os.environ)
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}
