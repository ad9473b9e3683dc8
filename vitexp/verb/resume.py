"""`vitexp resume [run=...]`: continue an interrupted run in its own folder, to the weights it would have had."""

import os
import platform
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from vitexp import build
from vitexp.checkpoint.safe_io import position_of
from vitexp.config.command import Command
from vitexp.errors import CheckpointError, ConfigError
from vitexp.machine.rank import is_first
from vitexp.report.screen import print_notes, say
from vitexp.report.text import duration
from vitexp.run.fit import fit
from vitexp.run.folder import Run, all_runs, find, working
from vitexp.run.reopen import reopen, require_same
from vitexp.run.same_data import changes as changes_of
from vitexp.run.same_data import keep_data
from vitexp.run.slurm import requeued
from vitexp.verb.measure import watch
from vitexp.verb.prepare import prepare
from vitexp.verb.report import reporting

# What may differ in a resumed run: how far, how often it is saved, how many workers read ahead, and how much is said.
ALLOWED = ("epochs", "data.num_workers", "data.changed", "trainer.checkpoint_seconds", "resume.allow", "quiet")
# What may differ where resume.allow= names it: the run goes on, but not to the bits that it would have had.
ON_REQUEST = (
    *("trainer.accelerator", "trainer.devices", "trainer.strategy", "trainer.clip", "trainer.log_every"),
    *("trainer.validate_every", "trainer.channels_last", "precision", "compile", "select", "logger"),
    *("data.root", "data.timeout"),
)


def resume(command: Command) -> dict[str, Any]:
    """Go on from the newest whole checkpoint; a finished run is left alone unless `epochs=` asks for more.

    Raises:
        CheckpointError: a changed configuration (with both values), changed data without `data.changed=accept`, or no
            whole checkpoint left.
    """
    fresh = command.cfg
    run = find(fresh.run, Path(fresh.outputs)) if fresh.run else _unfinished(Path(fresh.outputs))
    allowed = (*ALLOWED, *_on_request(fresh.resume.allow))
    require_same(run, command.overrides, fresh, allowed=allowed)
    changes = [override for override in command.overrides if override.partition("=")[0] in allowed]
    cfg = reopen(run, changes, fresh, allowed=allowed, verb="resume")
    run.require("epochs", "metrics", "hardware")
    if cfg.epochs < run.record["epochs"]:
        raise ConfigError(f"epochs={cfg.epochs} is fewer than the {run.record['epochs']} of run {run.name}; give more")
    if run.state == "done" and cfg.epochs == run.record["epochs"]:
        say(f"run {run.name} is already complete; epochs={2 * cfg.epochs} would extend it", quiet=cfg.quiet)
        return dict(run.record["metrics"])
    data = build.build_data(cfg)
    other = _accepted(run, cfg, changes_of(run, data) if is_first() else [])
    training, analysis = prepare(cfg, data, build.build_model(cfg)), build.build_analysis(cfg)
    run.acquire()
    with requeued(cfg.get("requeue", False)), reporting(run), working(run, cfg):
        run.folder.remove_parts()
        start = position_of(run.checkpoints)
        where = f"step {start.step} (epoch {start.epoch + 1}, batch {start.batch})"
        notes = [f"resuming {run.name} at {where}", *_differences(run, changes, other)]
        print_notes(notes, quiet=cfg.quiet)
        if other:
            keep_data(run, data)
        run.keep_config(cfg)
        run.update(state="running", epochs=cfg.epochs, pid=os.getpid(), host=platform.node())
        return dict(fit(training, run, start=start, looks=watch(cfg, run, data, analysis)))


def _unfinished(outputs: Path) -> Run:
    """The last run, or, where that is complete, the one that was interrupted before it.

    Raises:
        ConfigError: several were; each is named with its age.
    """
    last = find("last", outputs)
    if last.state != "done":
        return last
    left = [run for run in all_runs(outputs) if run.state == "interrupted" and "sweeps" not in run.path.parts]
    if len(left) > 1:
        listed = "".join(f"\n  vitexp resume run={run.name}  (begun {_age(run)} ago)" for run in reversed(left[-10:]))
        raise ConfigError(f"run {last.name} is complete, and {len(left)} others were interrupted; type one of:{listed}")
    return left[0] if left else last


def _age(run: Run) -> str:
    """The time since a run began; a dash where its record does not say."""
    try:
        began = datetime.fromisoformat(run.record.get("started", ""))
        return duration((datetime.now().astimezone() - began).total_seconds())
    except (ValueError, TypeError):  # no time, or one without its zone
        return "–"


def _on_request(names: Sequence[str]) -> list[str]:
    """The keys of `resume.allow`, if they can differ at all."""
    wrong = [name for name in names if name not in ON_REQUEST]
    if wrong:
        raise ConfigError(
            f"resume.allow=[{','.join(wrong)}] cannot be allowed: steps, order and weights of the run depend on it;"
            f" allowed are {', '.join(ON_REQUEST)}; or train a new run with checkpoint= the weights of this one"
        )
    return list(names)


def _accepted(run: Run, cfg: DictConfig, other: list[str]) -> list[str]:
    """Changes of the data, if they are accepted: for this time, so the word does not stay with the run."""
    if other and cfg.data.changed != "accept":
        raise CheckpointError(
            f"the data is not what run {run.name} was trained on: {'; '.join(other)}; give the files back, or go on"
            " with these, to another result: data.changed=accept"
        )
    cfg.data.changed = "stop"
    return [f"data: {text}" for text in other]


def _differences(run: Run, changes: Sequence[str], other: Sequence[str]) -> list[str]:
    """The reasons why the rest of the run has other bits than it would have had, for the terminal and run.json."""
    notes = [f"{change} by resume.allow" for change in changes if change.partition("=")[0] in ON_REQUEST]
    notes += other
    before = run.record.get("packages", {}).get("torch")
    if before not in (None, version("torch")):
        notes.append(f"begun with torch {before}, going on with {version('torch')}")
    if notes:
        run.update(changed=[*run.record.get("changed", []), *notes])
    return [f"{note}: not the bits of an uninterrupted run" for note in notes]
