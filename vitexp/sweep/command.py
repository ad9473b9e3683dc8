"""`vitexp -m`: a sweep that survives. Each job is a process of its own; the same command again does what is left."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from vitexp.config.command import implied
from vitexp.errors import ConfigError, require_extra
from vitexp.report.screen import say
from vitexp.report.sweep_screen import SweepScreen
from vitexp.run.slurm import requeued
from vitexp.sweep.conclude import conclude
from vitexp.sweep.folder import FAILED, FINISHED, Job, Sweep, create_sweep, find_sweep
from vitexp.sweep.launch import launch, launcher_of
from vitexp.sweep.loop import Listed, Source, run_all
from vitexp.sweep.plan import Words, grid, hash_of, settings_of, sort_words
from vitexp.sweep.slots import Slots, check_slots, shares

# A finished sweep of another verb is done again: what it measures may have changed meanwhile.
_KEPT = ("train", "prune")


def sweep(verb: str, typed: Sequence[str], argv: Sequence[str], config_dirs: Sequence[str]) -> int:
    """Run `verb` for every combination, or for what a study proposes; every value is checked before the first job.

    Raises:
        ConfigError: a mistake in any of the values.
        SweepError: at least one job failed; the others finished and the table says which.
        Interrupted: every job has saved itself; the same command continues.
    """
    words = sort_words(implied(verb, typed))
    settings = settings_of(words, config_dirs)
    launcher = launcher_of(words.hydra)
    check_slots(settings.slots)
    if settings.only not in (None, "failed"):
        raise ConfigError(f"only={settings.only} is not known; use only=failed, or nothing for all that is left")
    if settings.sweeper.kind == "optuna":
        if verb not in _KEPT:
            raise ConfigError(f"sweeper=optuna searches for what trains best, and {verb} does not train; drop sweeper=")
        if launcher is not None:
            raise ConfigError(
                f"sweeper=optuna runs its jobs here, not by {launcher.name}; drop hydra/launcher=, use slots="
            )
        with requeued(settings.requeue):
            return _study(verb, words, settings, argv, config_dirs)
    jobs = grid(words, config_dirs)
    folder = _open(verb, hash_of(sorted([verb, *(job.digest for job in jobs)])), settings, argv)
    try:
        folder.add_all(jobs)
        left = _left(folder.jobs, settings)
        with requeued(settings.requeue):
            if launcher is not None:
                launch(folder, left, launcher, quiet=settings.quiet)
            else:
                run_here(folder, Listed(left), settings, count=len(left))
        return conclude(folder, quiet=settings.quiet)
    finally:
        folder.release()


def _study(verb: str, words: Words, settings: DictConfig, argv: Sequence[str], config_dirs: Sequence[str]) -> int:
    require_extra("optuna", "optuna", asked="sweeper=optuna")
    from vitexp.sweep.space import Space
    from vitexp.sweep.study import Study

    space = Space(words, settings, config_dirs)
    folder = _open(verb, space.identity(verb), settings, argv)
    try:
        study = Study(folder, space, left=_left(folder.jobs, settings), new=settings.only is None)
        run_here(folder, study, settings, count=study.remaining)
        if (best := study.best()) is not None:
            say(best, quiet=settings.quiet)
        return conclude(folder, quiet=settings.quiet)
    finally:
        folder.release()


def run_here(folder: Sweep, source: Source, settings: DictConfig, *, count: int) -> None:
    """Run the jobs of `source`, about `count`, in slots on this machine."""
    if not count:
        return
    trainer = settings.trainer
    parts = shares(settings.slots, jobs=count, devices=trainer.devices, strategy=trainer.strategy)
    screen = SweepScreen(title=f"sweep {folder.path.name}", slots=len(parts), quiet=settings.quiet)
    with Slots(parts, preload=[f"vitexp.verb.{folder.record['verb']}"]) as slots:
        run_all(source, slots, screen, lambda: [job for job in folder.jobs if job.is_over])


def _open(verb: str, identity: str, settings: DictConfig, argv: Sequence[str]) -> Sweep:
    """The sweep to continue, or a new one; held by this process."""
    outputs = Path(settings.outputs)
    found = None if settings.new else find_sweep(outputs, identity)
    if found is not None and verb not in _KEPT and all(job.state in FINISHED for job in found.jobs):
        found = None
    if found is None:
        if settings.only is not None:
            raise ConfigError(f"only={settings.only}: no sweep of these jobs is under {outputs}; drop only=")
        found = create_sweep(outputs, identity=identity, verb=verb, argv=argv)
    else:
        found.acquire()
        done = sum(job.state in FINISHED for job in found.jobs)
        say(f"continuing sweep {found.path.name}: {done} of {len(found.jobs)} jobs are done", quiet=settings.quiet)
    found.update(pid=os.getpid(), host=platform.node())
    return found


def _left(jobs: Sequence[Job], settings: DictConfig) -> list[Job]:
    """Jobs that are still to be run."""
    states = FAILED if settings.only == "failed" else None
    return [job for job in jobs if (job.state in states if states else job.state not in FINISHED)]
