"""`vitexp prune run=last analysis.budget=0.5`: cut the channels a trained model needs least, fine-tune, save a new run.

The new run's configuration holds the widths (`pruned`) and starts from the sliced weights, so every other verb takes
it as it takes any run; the widths are in the weights file's header too, so `checkpoint=` needs nothing else.
"""

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vitexp.config.command import Command
from vitexp.errors import ConfigError
from vitexp.run.folder import find
from vitexp.verb.analyze import publish

ALLOWED = ("analysis", "analysis.", "epochs", "optimizer", "optimizer.", "schedule", "schedule.", "augment", "augment.")
ALSO_ALLOWED = ("data.batch_size", "trainer.", "logger", "precision", "select", "seed", "name")


def prune(command: Command) -> dict[str, Any]:
    """Score, slice, fine-tune, test; returns the metrics of the new run.

    Raises:
        ConfigError: no run, another analysis than taylor, or a model that has nothing to prune.
    """
    require_pruning(command.cfg)
    from vitexp import build
    from vitexp.analysis.taylor import slice_model
    from vitexp.analysis.write import summary_table, write
    from vitexp.checkpoint.write import save_weights
    from vitexp.report.screen import print_notes, say, show
    from vitexp.verb.evaluate import open_for
    from vitexp.verb.measure import subject, title
    from vitexp.verb.train import train

    run, cfg = open_for(command, allowed=(*ALLOWED, *ALSO_ALLOWED), verb="prune")
    assert run is not None
    notes: list[str] = []
    data, model = build.build_data(cfg), build.build_model(cfg, notes=notes, new_head=False)
    print_notes(notes, quiet=cfg.quiet)
    analysis = build.build_analysis(cfg)
    plans = analysis.measure(subject(cfg, model, data))
    written = write(analysis, {"trained": plans}, run.folder.sub("analysis"), title=title(cfg, run.name, analysis))
    publish(run, cfg, analysis.name, analysis.summary(plans), written[1])
    show(summary_table(analysis, {run.name: plans}), quiet=cfg.quiet)
    layers = slice_model(model, plans[-1].gates)
    before, after = (sum(p.numel() for p in m.parameters()) for m in (build.build_model(cfg, new_head=False), model))
    say(f"{after:,} of {before:,} parameters are left; fine-tuning for {cfg.epochs} epochs", quiet=cfg.quiet)
    file = run.folder.sub("analysis").made().path / f"pruned-{cfg.analysis.budget:g}.safetensors"
    save_weights(model, file, {"pruned": json.dumps(layers)})
    metrics: dict[str, Any] = train(
        Command(_pruned(cfg, layers, file, command.cfg), command.overrides, command.argv, command.folder)
    )
    return metrics


def require_pruning(cfg: DictConfig) -> None:
    """Raise ConfigError unless a run is named and the analysis is the one that says what to cut."""
    if cfg.run is None:
        raise ConfigError("prune needs a trained model; none was named; give run=last, a run's name or its folder")
    if cfg.chosen.analysis != "taylor":
        raise ConfigError(
            f"prune cuts what analysis=taylor finds and analysis={cfg.chosen.analysis} was given; drop it"
        )
    find(cfg.run, Path(cfg.outputs))


def _pruned(cfg: DictConfig, layers: list[dict[str, Any]], file: Path, typed: DictConfig) -> DictConfig:
    """The configuration of the new run."""
    new = cfg.copy()
    name = typed.name or f"{cfg.chosen.model}-{cfg.chosen.data}-pruned{cfg.analysis.budget:g}"
    changes = {
        "pruned": {"_target_": "vitexp.model.narrow.Narrow", "layers": layers},
        "checkpoint": str(file.resolve()),
        "run": None,
        "name": name,
        "analysis": {"measure": None},
    }
    for key, value in changes.items():
        OmegaConf.update(new, key, value, merge=False, force_add=True)
    new.chosen.analysis = "none"
    return new
