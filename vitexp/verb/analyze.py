"""`vitexp analyze analysis=similarity run=last`, or `model=... [checkpoint=...]`: look inside a model.

What can be refused by the configuration alone is refused before torch is imported.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vitexp.config.command import Command
from vitexp.config.compose import options, parse
from vitexp.errors import ConfigError
from vitexp.files.folder import Folder, as_name
from vitexp.run.folder import Run, find

ALLOWED = ("analysis", "analysis.", "data", "data.", "trainer.", "logger", "logger.", "select", "checkpoint", "seed")
_SHARED = ("analysis", "data", "trainer")  # groups whose changes count for the runs beside, too


def analyze(command: Command) -> dict[str, Any]:
    """Measure, print the headline values, write table and picture into `analysis/` of the run; returns the values.

    Raises:
        ConfigError: no analysis chosen, or one that means nothing for this model.
        CheckpointError: no such run, or one without weights.
    """
    require_analysis(command.cfg)
    from vitexp import build
    from vitexp.analysis.write import summary_table, write
    from vitexp.report.screen import print_notes, say, show
    from vitexp.verb.evaluate import open_for
    from vitexp.verb.measure import measure_all, title

    run, cfg = open_for(command, allowed=ALLOWED, verb="analyze")
    notes: list[str] = []
    analysis = build.build_analysis(cfg)
    trained, beside = run is not None or cfg.checkpoint is not None, _beside(command)
    label = run.name if run and beside else "trained" if trained else "untrained"
    measured = measure_all(cfg, analysis, trained=trained, label=label, beside=beside, notes=notes)
    print_notes(notes, quiet=cfg.quiet)
    written = write(analysis, measured, _folder(run, cfg), title=title(cfg, run.name if run else None, analysis))
    values: dict[str, Any] = analysis.summary(next(iter(measured.values())))
    if run is not None:
        publish(run, cfg, analysis.name, values, written[1])
    show(summary_table(analysis, measured), quiet=cfg.quiet)
    say(f"written to {', '.join(map(str, written))}", quiet=cfg.quiet)
    return values


def publish(run: Run, cfg: DictConfig, name: str, values: Mapping[str, float], picture: Path) -> None:
    """Show an analysis of a finished run where its training was shown: in its trackers and report.html.

    At the run's last step. A run that is still going has those files to itself.
    """
    from vitexp.logger.choose import trackers
    from vitexp.logger.metrics_file import read_metrics
    from vitexp.logger.tracker import RunLogger
    from vitexp.run.fit import session_of
    from vitexp.verb.prepare import logger_settings
    from vitexp.verb.report import write_run_page

    if run.state == "running":
        return
    run.folder.require_no_links()  # trackers open their files themselves
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    step = max((int(row["step"]) for row in read_metrics(run.path / "metrics.csv")), default=0)
    logger = RunLogger(trackers(logger_settings(cfg), session_of(run, config, step)))
    logger.log_metrics({f"analysis/{name}/{key}": value for key, value in values.items()}, step)
    logger.log_picture(f"analysis/{name}", picture, step)
    logger.close(exit_code=0)
    write_run_page(run)


def require_analysis(cfg: DictConfig) -> None:
    """Raise ConfigError unless an analysis is chosen whose images and runs exist."""
    if cfg.analysis.measure is None:
        known = ", ".join(f"analysis={option}" for option in options("analysis") if option != "none")
        raise ConfigError(f"analyze needs an analysis; none was chosen; use {known}")
    for reference in (cfg.run, *cfg.analysis.get("beside", [])):
        if reference is not None:
            find(reference, Path(cfg.outputs))


def _beside(command: Command) -> dict[str, DictConfig]:
    """Name -> configuration of the runs to stand beside: their weights, this analysis, the same changes of the data."""
    from vitexp.run.reopen import reopen
    from vitexp.verb.evaluate import trained_on

    cfg, found = command.cfg, {}
    shared = [text for text in command.overrides if parse(text).key_or_group.split(".")[0] in _SHARED]
    for reference in cfg.analysis.get("beside", []):
        run = find(reference, Path(cfg.outputs))
        other = reopen(run, shared, cfg, allowed=ALLOWED, verb="analyze")
        trained_on(run, other)
        found[run.name] = other
    return found


def _folder(run: Run | None, cfg: DictConfig) -> Folder:
    if run is not None:
        return run.folder.sub("analysis")
    name = as_name(f"{datetime.now():%Y-%m-%d_%H%M%S}-{cfg.chosen.model}-{cfg.chosen.data}")
    return Folder(Path(cfg.outputs), "analyses", name)
