"""`vitexp resume [run=...]`: continue an interrupted run in its own folder, to the weights it would have had."""

from pathlib import Path
from typing import Any

from vitexp import build
from vitexp.checkpoint.safe_io import newest
from vitexp.command import Command
from vitexp.errors import ConfigError
from vitexp.fit import fit
from vitexp.pages import reporting
from vitexp.reopen import reopen, require_same
from vitexp.report.screen import print_notes, say
from vitexp.run import find, working

# What may differ in a resumed run: how far, how often it is saved, and how many workers read ahead.
ALLOWED = ("epochs", "data.num_workers", "trainer.checkpoint_seconds")


def resume(command: Command) -> dict[str, Any]:
    """Go on from the newest whole checkpoint; a finished run is left alone unless `epochs=` asks for more.

    Raises:
        CheckpointError: a changed configuration (with both values), or no whole checkpoint left.
    """
    fresh = command.cfg
    run = find(fresh.run or "last", Path(fresh.outputs))
    require_same(run, command.overrides, fresh, allowed=ALLOWED)
    cfg = reopen(run, [o for o in command.overrides if _changes(o)], fresh, allowed=ALLOWED, verb="resume")
    if cfg.epochs < run.record["epochs"]:
        raise ConfigError(f"epochs={cfg.epochs} is fewer than the {run.record['epochs']} of run {run.name}; give more")
    if run.state == "done" and cfg.epochs == run.record["epochs"]:
        say(f"run {run.name} is already complete; epochs={2 * cfg.epochs} would extend it", quiet=cfg.quiet)
        return dict(run.record["metrics"])
    data = build.build_data(cfg)
    task = build.build_task(cfg, build.build_model(cfg))
    run.acquire()
    with reporting(run), working(run):
        found = newest(run.checkpoints)
        position = {key: found[1][key] for key in ("step", "epoch", "batch")} if found else None
        start = position or {"step": 0, "epoch": 0, "batch": 0}
        where = f"step {start['step']} (epoch {start['epoch'] + 1}, batch {start['batch']})"
        print_notes([f"resuming {run.name} at {where}"], quiet=cfg.quiet)
        run.update(state="running", epochs=cfg.epochs)
        return fit(cfg, run, data, task, position=start)


def _changes(override: str) -> bool:
    return override.partition("=")[0] in ALLOWED
