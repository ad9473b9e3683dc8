"""`vitexp analyze analysis=similarity run=last`, or `model=... [checkpoint=...]`: look inside a model.

What can be refused by the configuration alone is refused before torch is imported.
"""

from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from vitexp.command import Command
from vitexp.config import options
from vitexp.errors import ConfigError
from vitexp.run import Run, find

ALLOWED = ("analysis", "analysis.", "data", "data.", "trainer.", "select", "checkpoint", "seed")
SPLITS = ("train", "val", "test")


def analyze(command: Command) -> dict[str, Any]:
    """Measure, print the headline values, write table and picture into `analysis/` of the run; returns the values.

    Raises:
        ConfigError: no analysis chosen, or one that means nothing for this model.
        CheckpointError: no such run, or one without weights.
    """
    require_analysis(command.cfg)
    from vitexp import build
    from vitexp.analysis.write import summary_table, write
    from vitexp.evaluate import open_for
    from vitexp.report.screen import print_notes, say, show
    from vitexp.subject import measure_all, title

    run, cfg = open_for(command, allowed=ALLOWED, verb="analyze")
    notes: list[str] = []
    analysis = build.make(cfg.analysis.measure, trust=cfg.trust)
    trained = run is not None or cfg.checkpoint is not None
    measured = measure_all(cfg, analysis, trained=trained, beside=_beside(cfg), notes=notes)
    print_notes(notes, quiet=cfg.quiet)
    written = write(analysis, measured, _folder(run, cfg), title=title(cfg, run.name if run else None, analysis))
    show(summary_table(analysis, measured), quiet=cfg.quiet)
    say(f"written to {', '.join(map(str, written))}", quiet=cfg.quiet)
    values: dict[str, Any] = analysis.summary(next(iter(measured.values())))
    return values


def require_analysis(cfg: DictConfig) -> None:
    """Raise ConfigError unless an analysis is chosen whose images and runs exist."""
    if cfg.analysis.measure is None:
        known = ", ".join(f"analysis={option}" for option in options("analysis") if option != "none")
        raise ConfigError(f"analyze needs an analysis; none was chosen; use {known}")
    if cfg.analysis.split not in SPLITS:
        raise ConfigError(f"analysis.split={cfg.analysis.split} is not known; use {', '.join(SPLITS)}")
    for reference in (cfg.run, *cfg.analysis.get("beside", [])):
        if reference is not None:
            find(reference, Path(cfg.outputs))


def _beside(cfg: DictConfig) -> dict[str, DictConfig]:
    """Name -> configuration of the runs to stand beside, with their weights and this analysis."""
    from vitexp.evaluate import trained_on

    found = {}
    for reference in cfg.analysis.get("beside", []):
        run = find(reference, Path(cfg.outputs))
        other = run.config()
        other.analysis = cfg.analysis
        trained_on(run, other)
        found[run.name] = other
    return found


def _folder(run: Run | None, cfg: DictConfig) -> Path:
    if run is not None:
        return run.path / "analysis"
    return Path(cfg.outputs) / "analyses" / f"{datetime.now():%Y-%m-%d_%H%M%S}-{cfg.chosen.model}-{cfg.chosen.data}"
