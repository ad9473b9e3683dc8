"""`vitexp list models|data|attention|regimes|experiments|runs|adapters`: what there is, without importing torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from vitexp.config.compose import option_file, options
from vitexp.config.schema import GROUPS
from vitexp.errors import ConfigError
from vitexp.report.console import make_console
from vitexp.report.table import models_table, options_table, runs_table, value_table
from vitexp.run.folder import Run, all_runs
from vitexp.verb.compatibility import compatibility

# What a user says -> the group it lists.
LISTS = {
    "models": "model",
    "data": "data",
    "attention": "attention",
    "regimes": "regime",
    "experiments": "experiment",
    **{group: group for group in GROUPS},
}


def print_list(words: Sequence[str], config_dirs: Sequence[str] = ()) -> int:
    """Print one list; `outputs=` before or after says where runs are.

    Raises:
        ConfigError: no such list.
    """
    targets = [word for word in words if "=" not in word]
    outputs = Path(next((w.partition("=")[2] for w in words if w.startswith("outputs=")), "outputs"))
    allowed = "models, data, attention, regimes, experiments, runs, adapters or a group"
    if len(targets) != 1 or (targets[0] not in LISTS and targets[0] not in ("runs", "adapters")):
        raise ConfigError(f"list takes one of {allowed}; got {' '.join(words) or 'nothing'}; type `vitexp list runs`")
    if targets[0] == "runs":
        make_console().print(runs_table([_row(run) for run in all_runs(outputs)]))
        return 0
    if targets[0] == "adapters":
        make_console().print(value_table(_ADAPTER, [_adapter(r) for r in all_runs(outputs) if "adapter" in r.record]))
        return 0
    group = LISTS[targets[0]]
    if group == "model":
        rows = [(name, reference(name, config_dirs)) for name in options("model", config_dirs)]
        make_console().print(models_table(rows))
        return 0
    if group == "attention":
        make_console().print(value_table(*compatibility(config_dirs)))
        return 0
    found = [(name, option_file(group, name, config_dirs)) for name in options(group, config_dirs)]
    make_console().print(options_table(group, [(name, describe(file)) for name, file in found]))
    return 0


def describe(file: Path) -> str:
    """The comment at the head of an option's file, as one line."""
    lines = []
    for line in file.read_text().splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").strip())
    return " ".join(lines)


def reference(model: str, config_dirs: Sequence[str] = ()) -> dict[str, Any]:
    """The published figures that a model's file states, those of the files that it builds on included.

    Read from the files as they are, because composing each of some forty models takes seconds.
    """
    merged = dict[str, Any]()
    content = yaml.safe_load(option_file("model", model, config_dirs).read_text())
    for base in content.get("defaults", ()):
        if isinstance(base, str) and base != "_self_":
            merged |= reference(base, config_dirs)
    return merged | content.get("reference", {})


_ADAPTER = ("run", "regime", "model", "data", "parameters", "kB", "test/top1", "base")


def _adapter(run: Run) -> tuple[object, ...]:
    """What a run with a frozen base trained: where, how much, how well, and on which base."""
    about, chosen = run.record["adapter"], run.record.get("chosen", {})
    named = (chosen.get(group, "?") for group in ("regime", "model", "data"))
    score = run.record.get("metrics", {}).get("test/top1")
    return (run.name, *named, about["parameters"], round(about["bytes"] / 1000), score, about["base"][:12])


def _row(run: Run) -> dict[str, object]:
    chosen = run.record.get("chosen", {})
    metrics = run.record.get("metrics", {})
    best = next(
        (name for name in ("test/top1", "test/map", "best/val/top1", "val/top1", "val/map") if name in metrics), None
    )
    return {
        "name": run.name,
        **{group: chosen.get(group, "?") for group in ("model", "data", "regime")},
        "state": run.state,
        "metric": best,
        "value": metrics.get(best) if best else None,
        "duration_s": run.record.get("duration_s"),
    }
