"""The page that compares runs: what differs between them, mean ± std over seeds, curves, each swept key's effect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from vitexp.files.folder import Folder
from vitexp.files.record import RunRecord
from vitexp.report.metrics import VAL_AP, VAL_TOP1, headlines
from vitexp.report.page import number_cell, render
from vitexp.report.run_page import curve_charts, rows_of
from vitexp.report.table import mean_std
from vitexp.report.text import duration, number

_SEED = "seed"
# Where a run is kept, and what names it, says nothing about what it is.
_NEITHER = ("outputs", "name", "quiet", "logger", "chosen", "reference")
# One column a chart, so that a line is a run.
_CHARTS = {
    "Validation top-1": {VAL_TOP1: ""},
    "Validation AP": {VAL_AP: ""},
    "Validation loss": {"val/loss": ""},
    "Training loss": {"train/loss_step": ""},
}
_MOST_CURVES = 12  # more lines than that cannot be told apart


@dataclass(frozen=True)
class ComparedRun:
    """One run: its name, folder, state, run.json and its configuration as dotted keys."""

    name: str
    folder: Folder
    state: str
    record: RunRecord
    config: Mapping[str, Any]


def compare_page(runs: Sequence[ComparedRun], *, title: str, unread: Sequence[str] = ()) -> str:
    """HTML of several runs, in the given order; `unread` says of which others there is nothing, and why."""
    problems = list(unread)
    keys = differing(runs)
    metrics = headlines(name for run in runs for name in run.record.get("metrics", {}))
    curves = curve_charts([(_label(run, keys), rows_of(run.folder, problems)) for run in runs[:_MOST_CURVES]], _CHARTS)
    swept = [chart for key in keys if key != _SEED for chart in [_effect(runs, key, metrics)] if chart]
    context = {
        "title": title,
        "subtitle": _subtitle(runs),
        "setting_columns": [*_without_seed(keys), *metrics, "runs"],
        "settings": _settings(runs, keys, metrics) if _SEED in keys else [],
        "run_columns": ["run", "state", *keys, *metrics, "time"],
        "runs": [_row(run, keys, metrics) for run in runs],
        "swept": range(len(swept)),
        "lines": range(len(swept), len(swept) + len(curves)),
        "problems": problems,
    }
    return render("compare.html", charts=[*swept, *curves], context=context)


def differing(runs: Sequence[ComparedRun]) -> list[str]:
    """Keys whose value is not the same in all runs; a group that differs stands for the keys below it."""
    groups = sorted({group for run in runs for group in run.record.get("chosen", {})})
    chosen = [group for group in groups if len({str(run.record["chosen"].get(group)) for run in runs}) > 1]
    hidden = (*_NEITHER, *chosen, *(f"model.{group}" for group in chosen))
    names = sorted({name for run in runs for name in run.config})
    keys = [
        name
        for name in names
        if not any(name == prefix or name.startswith(f"{prefix}.") for prefix in hidden)
        and len({str(run.config.get(name)) for run in runs}) > 1
    ]
    keys = [key for key in keys if not any(_follows(key, other, runs) for other in keys if other != key)]
    return [*(group for group in chosen if group != "logger"), *keys]


def _follows(key: str, other: str, runs: Sequence[ComparedRun]) -> bool:
    """Whether `key` is computed from `other`, as data.module.batches.size from data.batch_size: equal and deeper."""
    same = all(str(run.config.get(key)) == str(run.config.get(other)) for run in runs)
    return same and key.count(".") > other.count(".")


def _value(run: ComparedRun, key: str) -> Any:
    chosen = run.record.get("chosen", {})
    return chosen[key] if key in chosen else run.config.get(key)


def _label(run: ComparedRun, keys: Sequence[str]) -> str:
    return " ".join(f"{key.rsplit('.', 1)[-1]}={_value(run, key)}" for key in keys[:3]) or run.name


def _without_seed(keys: Sequence[str]) -> list[str]:
    return [key for key in keys if key != _SEED]


def _subtitle(runs: Sequence[ComparedRun]) -> str:
    states = {state: sum(run.state == state for run in runs) for state in dict.fromkeys(run.state for run in runs)}
    return ", ".join(f"{count} {state}" for state, count in states.items())


def _settings(runs: Sequence[ComparedRun], keys: Sequence[str], metrics: Sequence[str]) -> list[list[Any]]:
    kept = _without_seed(keys)
    grouped: dict[tuple[str, ...], list[ComparedRun]] = {}
    for run in runs:
        grouped.setdefault(tuple(str(_value(run, key)) for key in kept), []).append(run)
    rows: list[list[Any]] = []
    for members in grouped.values():
        cells = [_cell(_value(members[0], key)) for key in kept]
        for metric in metrics:
            values = _finite(members, metric)
            cells.append(number_cell(fmean(values) if values else None, mean_std(values)))
        rows.append([*cells, number_cell(len(members), str(len(members)))])
    return rows


def _row(run: ComparedRun, keys: Sequence[str], metrics: Sequence[str]) -> list[Any]:
    values = run.record.get("metrics", {})
    seconds = run.record.get("fit_seconds")
    return [
        run.name,
        run.state,
        *(_cell(_value(run, key)) for key in keys),
        *(number_cell(values.get(name), number(values.get(name))) for name in metrics),
        number_cell(seconds, duration(seconds)),
    ]


def _cell(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number_cell(float(value), f"{value:g}")
    return str(value)


def _finite(runs: Sequence[ComparedRun], metric: str) -> list[float]:
    return [run.record["metrics"][metric] for run in runs if metric in run.record.get("metrics", {})]


def _effect(runs: Sequence[ComparedRun], key: str, metrics: Sequence[str]) -> dict[str, Any] | None:
    """The first metric against the values of one key: each run a dot, the mean over runs a line."""
    tested = [run for run in runs if metrics and metrics[0] in run.record.get("metrics", {})]
    values = list(dict.fromkeys(_value(run, key) for run in tested))
    if len(values) < 2:
        return None
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    place = {value: float(value) if numeric else float(index) for index, value in enumerate(values)}
    dots = [(place[_value(run, key)], run.record["metrics"][metrics[0]]) for run in tested]
    means = sorted((x, fmean(y for other, y in dots if other == x)) for x in set(place.values()))
    chart: dict[str, Any] = {
        "title": f"{metrics[0]} against {key}",
        "xlabel": key,
        "series": [
            {"name": "mean", "x": [x for x, _ in means], "y": [y for _, y in means]},
            {"name": "runs", "x": [x for x, _ in dots], "y": [y for _, y in dots], "dots": True},
        ],
    }
    if not numeric:
        chart["names"] = {str(int(place[value])): str(value) for value in values}
    elif min(place.values()) > 0 and max(place.values()) / min(place.values()) >= 8:
        chart["log"] = True
    return chart
