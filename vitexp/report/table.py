"""Tables and panels for the terminal, from plain data; no torch.

Every cell is a Text of cleaned data, so a class called `[red]` or a run name with an escape sequence is only text,
whatever console prints it. `vitexp.report.console.make_console` prints them whole in a pipe.
"""

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from vitexp.report.metrics import compared
from vitexp.report.text import clean, duration, magnitude, number, percent

_STATES = {
    "done": "green",
    "running": "cyan",
    "pruned": "magenta",
    "failed": "red",
    "killed": "red",
    "unreadable": "red",
    "interrupted": "yellow",
}
_SEED = "seed"
_UNBOUNDED = 10_000
# Predictions on the screen; the file has the rest.
_SHOWN = 50


def runs_table(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Runs, one a row, in the given order.

    Args:
        rows: name, model, data, regime, state, `metric` (name of the best metric, or None), `value`, `duration_s`.
    """
    if not rows:
        return Text("no runs yet; `vitexp` makes one")
    return _Fitting(_runs(rows, wide=True), _runs(rows, wide=False))


def options_table(group: str, rows: Sequence[tuple[str, str]]) -> RenderableType:
    """The options of a config group with what each is, as `group=option` takes them."""
    table = _table(f"{clean(group)}=", "")
    for option, description in rows:
        table.add_row(_text(option, style="bold"), _text(description))
    return table


def models_table(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> RenderableType:
    """Models with their published figures: parameters with 1,000 classes, cost at their own size, whose accuracy.

    Args:
        rows: name and `reference` (vitexp.config.schema.REFERENCE), where a figure may be missing or None.
    """
    return _Fitting(_models(rows, wide=True), _models(rows, wide=False))


def value_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> RenderableType:
    """Any rows under named columns: numbers to the right, None as a dash."""
    table = _table(title=title)
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[index], int | float | None) for row in rows)
        table.add_column(_text(column), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_text(number(value)) for value in row))
    return table


def predictions_table(
    rows: Sequence[Mapping[str, Any]], file: Path | None = None, *, title: str = ""
) -> RenderableType:
    """Images with their best classes; with `file`, which has all of them, only the first here.

    Args:
        rows: `image` (name), `classes` and `probabilities` from the most probable down.
        file: the CSV that the caption names.
    """
    shown = rows if file is None else rows[:_SHOWN]
    table = _table("image", "prediction", title=title, fold=("image",))
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("then", ratio=1)
    for row in shown:
        (best, probability), *others = zip(row["classes"], row["probabilities"], strict=True)
        then = ", ".join(f"{clean(name)} {percent(share)}" for name, share in others)
        table.add_row(_text(row["image"]), _text(best, style="bold"), _text(percent(probability)), _text(then))
    if file is None:
        return table
    more = f"and {len(rows) - len(shown):,} more; " if len(rows) > len(shown) else ""
    return Group(table, _text(f"{more}all {len(rows):,} in {file}"))


def metrics_table(metrics: Mapping[str, float], *, title: str = "") -> RenderableType:
    """Metrics by name, one a row."""
    return value_table(["metric", "value"], list(metrics.items()), title=title)


def sweep_table(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """A sweep: one row for each setting, the best first, its metrics as mean ± standard deviation over the seeds.

    Args:
        rows: one a job: `overrides` (key -> value, of the swept keys), `metrics` (name -> value), `state`.
    """
    names = compared(name for row in rows for name in row["metrics"])
    return _Fitting(_sweep(rows, names), _sweep(rows, names[:2]))


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as the text of a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def mean_std(values: Sequence[float]) -> str:
    """`0.9910 ± 0.0012`: mean and sample standard deviation; without ± for a single value, a dash for none."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "–" if not values else "nan"
    mean = number(float(statistics.fmean(finite)))
    return mean if len(finite) == 1 else f"{mean} ± {number(float(statistics.stdev(finite)))}"


def header(
    *,
    name: str,
    folder: str,
    device: str,
    precision: str,
    parameters: tuple[int, int],
    macs: float | None,
    sizes: Mapping[str, int],
    batch: str,
    schedule: str,
    settings: Sequence[str] = (),
    trains: str = "",
) -> RenderableType:
    """The header of a run: what is about to happen.

    Args:
        name: of the run.
        folder: of the run.
        device: such as `cpu (2 threads)` or `1 × NVIDIA H100`.
        precision: such as `bf16-mixed`.
        parameters: (trainable, all).
        macs: multiply-accumulates of one image; None where they cannot be counted.
        sizes: images in `train`, `val`, `test`.
        batch: effective batch and how it is made, such as `512 = 128 × 2 devices × 2 accumulated`.
        schedule: such as `cosine, peak 0.004, 69 of 460 steps warm-up`.
        settings: overrides with their canonical keys.
        trains: what of a model with frozen parts trains; empty if all of it does.
    """
    trainable, total = parameters
    count = f"{total:,}" if trainable == total else f"{trainable:,} of {total:,} trainable"
    model = f"{count} parameters" + ("" if macs is None else f", {magnitude(macs)}MAC an image")
    lines = {
        "run": name,
        "folder": folder,
        "device": f"{device}, {precision}",
        "model": model,
        **({"trains": trains} if trains else {}),
        "images": ", ".join(f"{key} {value:,}" for key, value in sizes.items()),
        "batch": batch,
        "schedule": schedule,
    }
    if settings:
        lines["settings"] = "  ".join(settings)
    return _pairs(lines)


def card(
    *,
    name: str,
    folder: str,
    best: Mapping[str, float],
    last: Mapping[str, float],
    seconds: float,
    commands: Sequence[tuple[str, str]],
) -> RenderableType:
    """The card of a run: metrics at the best and at the last epoch, where it is, what to type next.

    Args:
        name: of the run.
        folder: of the run.
        best: metric name -> value at the best epoch; may lack some of `last`.
        last: metric name -> value at the end; test metrics stand here.
        seconds: duration of the run.
        commands: (command, what it does), three of them.
    """
    table = _table("metric")
    for column in ("best", "last"):
        table.add_column(column, justify="right", no_wrap=True)
    for metric in dict.fromkeys([*last, *best]):
        table.add_row(_text(metric), _text(number(best.get(metric))), _text(number(last.get(metric)), style="bold"))
    following = Table.grid(padding=(0, 2))
    for command, purpose in commands:
        following.add_row(_text(command, style="bold cyan"), _text(purpose, style="dim"))
    where = _pairs({"folder": folder, "time": duration(seconds)})
    return _Framed(clean(name), Group(table, Text(), where, Text(), Text("next"), following))


@dataclass(frozen=True)
class _Framed:
    """A panel on a terminal; elsewhere its title and body, without lines that only mean something to the eye."""

    title: str
    body: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.is_terminal:
            title = Text(self.title, style="bold")
            yield Panel(self.body, title=title, title_align="left", border_style="green", expand=False, padding=(0, 1))
        else:
            yield Text(self.title)
            yield self.body


@dataclass(frozen=True)
class _Fitting:
    """The wide table where it fits without cutting, else the narrow one."""

    wide: Table
    narrow: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unbounded = options.update(max_width=_UNBOUNDED)
        fits = Measurement.get(console, unbounded, self.wide).maximum <= options.max_width
        yield self.wide if fits else self.narrow


def _models(rows: Sequence[tuple[str, Mapping[str, Any]]], *, wide: bool) -> Table:
    """All columns, or without whose figure the accuracy is."""
    table = _table("model=")
    for column in ("parameters", "GMACs", "size", "top-1"):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("paper", "whose figure")[: 1 + wide]:
        table.add_column(column, no_wrap=wide)
    for name, figures in rows:
        count, cost = figures.get("parameters"), figures.get("gmacs")
        numbers = (
            f"{count:,}" if count else "",
            f"{cost:.3f}" if cost else "",
            str(figures.get("image_size") or ""),
            f"{figures['top1']:.2f}" if figures.get("top1") else "",
        )
        texts = [figures.get(key) or "" for key in ("paper", "source")[: 1 + wide]]
        table.add_row(_text(name, style="bold"), *map(_text, (*numbers, *texts)))
    return table


def _runs(rows: Sequence[Mapping[str, Any]], *, wide: bool) -> Table:
    """The table of runs; the narrow one leaves out what the names say already."""
    metrics = {row["metric"] for row in rows if row.get("metric")}
    shared = metrics.pop() if len(metrics) == 1 else None
    groups = ("model", "data", "regime")
    table = _table("name", *(groups if wide else ()), fold=("name",))
    table.add_column("state", no_wrap=True)
    table.add_column(Text(clean(shared or "best")), justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    for row in rows:
        state, value = str(row["state"]), number(row.get("value"))
        named = shared or not row.get("metric")
        said = "-".join(str(row[group]) for group in groups) in str(row["name"])
        below = "" if wide or said else "\n  " + " ".join(clean(row[group]) for group in groups)
        table.add_row(
            Text(clean(row["name"])).append(below, style="dim"),
            *(_text(row[group]) for group in (groups if wide else ())),
            _text(state, style=_STATES.get(state, "")),
            _text(value if named else f"{row['metric']} {value}"),
            _text(duration(row.get("duration_s"))),
        )
    return table


def _sweep(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Table:
    """The table of a sweep with the metrics `names`."""
    settings: dict[tuple[tuple[str, str], ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        setting = tuple((key, str(value)) for key, value in row["overrides"].items() if key != _SEED)
        settings.setdefault(setting, []).append(row)
    keys = list(dict.fromkeys(key for setting in settings for key, _ in setting))
    table = _table(*(clean(key) for key in keys))
    for name in (*names, "jobs"):
        table.add_column(_text(name), justify="right")
    for setting, jobs in sorted(settings.items(), key=lambda item: _rank(item[1], names)):
        values = dict(setting)
        cells = [_text(mean_std([job["metrics"][name] for job in jobs if name in job["metrics"]])) for name in names]
        table.add_row(*(_text(values.get(key, "–")) for key in keys), *cells, _job_states(jobs))
    return table


def _rank(jobs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> float:
    """Lower for a better mean of the first metric; settings without one come last."""
    values = [job["metrics"][names[0]] for job in jobs if names and names[0] in job["metrics"]]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return math.inf
    return statistics.fmean(finite) * (1 if names[0].endswith(("loss", "ece")) else -1)


def _text(value: object, *, style: str = "") -> Text:
    return Text(clean(value), style=style)


def _table(*columns: str, title: str = "", fold: Sequence[str] = ()) -> Table:
    """A table with one rule below its head; columns in `fold` break anywhere, so that names stay whole to copy."""
    table = Table(
        title=Text(clean(title), style="bold") if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        header_style="bold",
        show_edge=False,
    )
    for column in columns:
        table.add_column(Text(column), overflow="fold" if column in fold else "ellipsis")
    return table


def _pairs(lines: Mapping[str, str]) -> Table:
    """Label and value on each line."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for label, value in lines.items():
        table.add_row(_text(label), _text(value, style="bold" if label == "run" else ""))
    return table


def _job_states(jobs: Sequence[Mapping[str, Any]]) -> Text:
    """`3 done`, or `2 done, 1 failed`."""
    states = [str(job["state"]) for job in jobs]
    parts = [(f"{states.count(state)} {clean(state)}", _STATES.get(state, "")) for state in dict.fromkeys(states)]
    return Text(", ").join(Text(part, style=style) for part, style in parts)
