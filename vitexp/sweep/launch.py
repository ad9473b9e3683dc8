"""Jobs by submitit, on SLURM or in processes here: `hydra/launcher=` names it, `hydra.launcher.*` are its parameters.

It gets the folders of frozen jobs, and each becomes a process that keeps its state there. So a cluster that gives up
early, or a node that is lost, costs what was unfinished there, and the same command submits what is left.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from vitexp.config.compose import parse
from vitexp.errors import ConfigError, Interrupted, first_line, require_extra
from vitexp.files.folder import Folder
from vitexp.report.sweep_screen import SweepScreen
from vitexp.sweep.folder import OUTPUT, Job, Sweep
from vitexp.sweep.loop import noting_signals
from vitexp.sweep.progress import progress
from vitexp.sweep.slots import environment

if TYPE_CHECKING:
    import submitit

_POLL_S = 1.0
# One of these is what submitit has SLURM send before the end (SUBMITIT_PREEMPT_SIGNAL), USR2 if not told otherwise.
_NOTICES = (signal.SIGUSR1, signal.SIGUSR2)
# The keys and what they are unless given, of every launcher and of SLURM's; None is the cluster's own.
_COMMON: dict[str, object] = {
    "timeout_min": 60,
    "nodes": 1,
    "tasks_per_node": 1,
    "name": "vitexp",
    **dict.fromkeys(("cpus_per_task", "gpus_per_node", "mem_gb", "stderr_to_stdout", "submitit_folder")),
}
_SLURM: dict[str, object] = {
    "signal_delay_s": 120,
    "max_num_timeout": 0,
    "array_parallelism": 256,
    **dict.fromkeys(("partition", "qos", "comment", "constraint", "exclude", "gres", "account", "cpus_per_gpu")),
    **dict.fromkeys(("gpus_per_task", "mem_per_gpu", "mem_per_cpu", "setup", "additional_parameters")),
}
_LAUNCHERS = {"submitit_slurm": {**_COMMON, **_SLURM}, "submitit_local": _COMMON}


@dataclass(frozen=True)
class Launcher:
    """`name` as `hydra/launcher=` has it, and the parameters."""

    name: str
    values: Mapping[str, object]

    def executor(self, folder: Path) -> "submitit.AutoExecutor":
        """Submitit's, which keeps its files in `folder`."""
        import submitit

        cluster = self.name.partition("_")[2]
        values = {key: value for key, value in self.values.items() if value is not None}
        kept = str(values.pop("submitit_folder", folder / ".submitit" / "%j"))
        timeouts = {f"{cluster}_{key}": values.pop(key) for key in ("max_num_timeout",) if key in values}
        executor = submitit.AutoExecutor(folder=kept, cluster=cluster, **timeouts)
        executor.update_parameters(**{k if k in _COMMON else f"{cluster}_{k}": v for k, v in values.items()})
        return executor


def launcher_of(words: Sequence[str]) -> Launcher | None:
    """The launcher that the command names; None for the slots of this machine.

    Raises:
        ConfigError: one that is not known or not installed, or a key that it does not take.
    """
    given: dict[str, object] = {word.key_or_group: word.value() for word in map(parse, words)}
    name = str(given.pop("hydra/launcher", "basic"))
    for key in given:
        if not key.startswith("hydra.launcher."):
            raise ConfigError(f"{key}= is Hydra's, and a sweep here takes only hydra/launcher= and hydra.launcher.*")
    if name == "basic":
        if given:
            raise ConfigError("hydra.launcher.* needs a launcher; add hydra/launcher=submitit_slurm, or use slots=")
        return None
    if name not in _LAUNCHERS:
        raise ConfigError(
            f"hydra/launcher={name} is not known; use {', '.join(_LAUNCHERS)}, or for jobs side by side here slots=4"
        )
    require_extra("submitit", "submitit", asked=f"hydra/launcher={name}")
    known = _LAUNCHERS[name]
    values = {key.removeprefix("hydra.launcher."): value for key, value in given.items()}
    for key in values.keys() - known.keys():
        close = "".join(f"; did you mean {near}?" for near in get_close_matches(key, known, n=1))
        raise ConfigError(f"hydra.launcher.{key}= is not of {name}{close or ', which takes ' + ', '.join(known)}")
    return Launcher(name, {**known, **values})


def launch(sweep: Sweep, jobs: Sequence[Job], launcher: Launcher, *, quiet: bool) -> None:
    """Hand the jobs to the launcher and watch their folders until all are done.

    Raises:
        ConfigError: the launcher does not take them.
        Interrupted: asked to stop; jobs here stop too, those on a cluster go on.
    """
    jobs = [job for job in jobs if not job.is_busy()]  # one of an earlier command may still run there
    if not jobs:
        return
    screen = SweepScreen(title=f"sweep {sweep.path.name}", slots=len(jobs), quiet=quiet)
    with noting_signals() as stop, screen:
        submitted = _submit(launcher, sweep.path.resolve(), jobs)
        open_jobs = list(jobs)
        while not all(job.done() for job in submitted):
            time.sleep(_POLL_S)
            open_jobs = _read(open_jobs, screen)
            if stop.take() and not _stopping(launcher, submitted):
                break
            running = [job for job in open_jobs if job.state == "running"]
            waiting = len(open_jobs) - len(running)
            lines = [progress(job, time.time()) for job in running] if screen.is_live else []
            screen.draw(lines, [job for job in jobs if job.is_over], waiting)
        _read(open_jobs, screen)
    if stop.signum is not None:
        raise Interrupted(stop.signum)
    for job in jobs:
        job.reload()
        if job.state == "running" and not job.is_busy():
            job.update(state="killed", exit_code=137, reason="its process is gone (killed, or the node was lost)")
    for error in [error for error in (job.exception() for job in submitted) if error is not None][:1]:
        screen.say(f"{launcher.name}: {first_line(error)} (all in {sweep.path}/.submitit)")


def _submit(launcher: Launcher, folder: Path, jobs: Sequence[Job]) -> "list[submitit.Job[None]]":
    """Submit the jobs; what submitit says goes to launcher.txt."""
    from submitit.core.utils import FailedJobError

    os.environ.update(environment())
    log = logging.getLogger("submitit")
    log.handlers[:], log.propagate = [logging.FileHandler(folder / "launcher.txt")], False
    # What starts here must not hear the terminal's Ctrl-C: the sweep passes it on.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return launcher.executor(folder).map_array(Work(), [job.path.resolve() for job in jobs])
    except (FailedJobError, RuntimeError, ValueError, AssertionError, OSError) as error:
        given = " ".join(f"hydra.launcher.{key}={value}" for key, value in launcher.values.items() if value is not None)
        raise ConfigError(f"hydra/launcher={launcher.name} does not take {given} ({first_line(error)})") from error
    finally:
        signal.signal(signal.SIGINT, handler)


def _stopping(launcher: Launcher, submitted: "Sequence[submitit.Job[None]]") -> bool:
    """Ask the jobs on this machine to save themselves; False where they are on a cluster and go on."""
    if launcher.name == "submitit_local":
        for job in submitted:
            if not job.done():
                os.kill(int(job.job_id), signal.SIGTERM)  # of its controller, which passes it on
    return launcher.name == "submitit_local"


def _read(jobs: Sequence[Job], screen: SweepScreen) -> list[Job]:
    """Read the states again, say which jobs have started or ended; those of which there is more to come.

    An interrupted one may be queued again by the launcher.
    """
    for job in jobs:
        before = job.state
        job.reload()
        if job.state != before:
            screen.say(f"{job.label}: {job.state}")
    return [job for job in jobs if not job.is_over or job.state == "interrupted"]


class Work:
    """The work of a node: the job in a process of its own, signals passed on.

    Where submitit gives notice that the time is almost over, the job is saved first, then queued again by submitit.
    """

    def checkpoint(self, folder: Path) -> "submitit.helpers.DelayedSubmission":
        """Queue the same job again."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, folder)

    def __call__(self, folder: Path) -> None:
        """Run the frozen job in `folder`."""
        with Folder(folder.parent, folder.name).appending(OUTPUT) as output:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "vitexp.sweep.job", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment(),
                start_new_session=True,
            )

            noticed: list[signal.Signals] = []

            def pass_on(signum: int, frame: FrameType | None) -> None:
                process.send_signal(signum)

            def notice(signum: int, frame: FrameType | None) -> None:
                noticed.append(signal.Signals(signum))
                process.send_signal(signal.SIGUSR1)

            before = {signum: signal.signal(signum, pass_on) for signum in (signal.SIGINT, signal.SIGTERM)}
            for signum in _NOTICES:
                if callable(signal.getsignal(signum)):
                    before[signum] = signal.signal(signum, notice)
            code = process.wait()
            for signum, handler in before.items():
                signal.signal(signum, handler)
        handler = before[noticed[-1]] if noticed else None
        if code in (128 + signal.SIGUSR1, -signal.SIGUSR1) and callable(handler):
            handler(noticed[-1], None)
