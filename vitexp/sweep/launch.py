"""Jobs by one of Hydra's launchers: submitit (SLURM, or processes here) and joblib; `hydra/launcher=` names it.

The launcher gets numbers of frozen jobs, not their overrides, and each becomes a process that keeps its state in its
folder. So a launcher that gives up early, or a node that is lost, costs what was unfinished there, and the same command
submits what is left.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import MISSING

from vitexp.config.releases import VERSION_BASE
from vitexp.errors import ConfigError, Interrupted, require_extra
from vitexp.report.sweep_screen import SweepScreen
from vitexp.sweep.folder import Job, Sweep
from vitexp.sweep.loop import noting_signals
from vitexp.sweep.progress import progress
from vitexp.sweep.slots import environment

_POLL_S = 1.0
# One of these is what submitit has SLURM send before the end (SUBMITIT_PREEMPT_SIGNAL), USR2 if not told otherwise.
_NOTICES = (signal.SIGUSR1, signal.SIGUSR2)
_EXTRAS = {"submitit_slurm": "submitit", "submitit_local": "submitit", "joblib": "joblib"}
# Hydra's own folders and logging off, as each job has its own; two jobs share no folder of Hydra's.
_QUIET = (
    "hydra.sweep.subdir=.",
    "hydra.output_subdir=null",
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
    "hydra.job.chdir=false",
)


@dataclass
class Numbers:
    """The configuration of one of the launcher's jobs: the sweep's folder and the number of a frozen job in it."""

    sweep: str = MISSING
    job: int = MISSING


def launcher_of(words: Sequence[str]) -> str | None:
    """Hydra's launcher that the command names; None for the slots of this machine.

    Raises:
        ConfigError: one that is not known or not installed, or another key of Hydra's.
    """
    pairs = dict(word.split("=", 1) for word in words)
    for key in pairs:
        if key != "hydra/launcher" and not key.startswith("hydra.launcher."):
            raise ConfigError(f"{key}= is Hydra's, and a sweep here takes only hydra/launcher= and hydra.launcher.*")
    name = pairs.get("hydra/launcher", "basic")
    if name == "basic":
        if len(pairs) > ("hydra/launcher" in pairs):
            raise ConfigError("hydra.launcher.* needs a launcher; add hydra/launcher=submitit_slurm, or use slots=")
        return None
    if name not in _EXTRAS:
        raise ConfigError(f"hydra/launcher={name} is not known; use {', '.join(_EXTRAS)}, or slots= for this machine")
    extra = _EXTRAS[name]
    require_extra(extra, extra, f"hydra_plugins.hydra_{extra}_launcher", asked=f"hydra/launcher={name}")
    _check_keys(name, [key.split(".")[2] for key in pairs if key != "hydra/launcher"])
    return name


def _check_keys(launcher: str, keys: Sequence[str]) -> None:
    from hydra.core.config_store import ConfigStore

    import_module(f"hydra_plugins.hydra_{_EXTRAS[launcher]}_launcher.config")  # puts it into the store
    store: Any = ConfigStore.instance().repo["hydra"]
    known = [key for key in store["launcher"][f"{launcher}.yaml"].node if not key.startswith("_")]
    for key in keys:
        if key not in known:
            close = "".join(f"; did you mean {name}?" for name in get_close_matches(key, known, n=1))
            raise ConfigError(
                f"hydra.launcher.{key}= is not of {launcher}{close or ', which takes ' + ', '.join(known)}"
            )


def launch(sweep: Sweep, jobs: Sequence[Job], words: Sequence[str], *, quiet: bool) -> None:
    """Hand the jobs to the launcher and watch their folders until it returns.

    Raises:
        Interrupted: asked to stop; jobs here stop too, those on a cluster go on.
    """
    jobs = [job for job in jobs if not job.is_busy()]  # one of an earlier command may still run there
    if not jobs:
        return
    numbers = ",".join(str(job.number) for job in jobs)
    command = [sys.executable, "-P", "-m", "vitexp.sweep.launch", str(sweep.path.resolve()), numbers, *words]
    screen = SweepScreen(title=f"sweep {sweep.path.name}", slots=len(jobs), quiet=quiet)
    with noting_signals() as stop, screen, (sweep.path / "launcher.txt").open("a") as output:
        begin = output.tell()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment(), start_new_session=True
        )
        open_jobs = list(jobs)
        while process.poll() is None:
            time.sleep(_POLL_S)
            open_jobs = _look(open_jobs, screen)
            for signum in stop.take():
                process.send_signal(signum)
            running = [job for job in open_jobs if job.state == "running"]
            waiting = len(open_jobs) - len(running)
            lines = [progress(job, time.time()) for job in running] if screen.is_live else []
            screen.draw(lines, [job for job in jobs if job.is_over], waiting)
        _look(open_jobs, screen)
    for job in jobs:
        job.reload()
        if job.state == "running" and not job.is_busy():
            job.update(state="killed", exit_code=137, reason="its process is gone (killed, or the node was lost)")
    if stop.signum is not None:
        raise Interrupted(stop.signum)
    if process.returncode != 0:
        said = (sweep.path / "launcher.txt").read_text()[begin:].strip().splitlines() or ["without a word"]
        gist = said[-1] if said[0].startswith("Traceback") else said[0]
        screen.say(f"the launcher ended with exit code {process.returncode}: {gist} (all in {sweep.path}/launcher.txt)")


def _look(jobs: Sequence[Job], screen: SweepScreen) -> list[Job]:
    """Read the states again, say which jobs have started or ended; those of which there is more to come.

    An interrupted one may be queued again by the launcher.
    """
    for job in jobs:
        before = job.state
        job.reload()
        if job.state != before:
            screen.say(f"{job.label}: {job.state}")
    return [job for job in jobs if not job.is_over or job.state == "interrupted"]


def work(cfg: Any) -> None:
    """Run the job of a number in a process of its own, signals passed on.

    Where submitit gives notice that the time is almost over, the job is saved first, then queued again by submitit.
    """
    (folder,) = Path(cfg.sweep).glob(f"{cfg.job}-*")
    with (folder / "output.txt").open("a") as output:
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


def main(folder: str, numbers: str, words: Sequence[str]) -> None:
    """Let Hydra launch the jobs `numbers` of the sweep in `folder`."""
    import hydra
    from hydra.core.config_store import ConfigStore

    # By this module's name, under which another process finds it too; here it is `__main__`.
    elsewhere = import_module("vitexp.sweep.launch")
    ConfigStore.instance().store(name="numbers", node=elsewhere.Numbers)
    sys.argv = ["vitexp", "--multirun", f"hydra.sweep.dir='{folder}'", *_QUIET, *words]
    sys.argv += ["hydra.job.name=vitexp", f"sweep='{folder}'", f"job={numbers}"]
    hydra.main(config_path=None, config_name="numbers", **VERSION_BASE)(elsewhere.work)()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
