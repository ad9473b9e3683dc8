"""The page of one run: what was asked, how it went, what it got wrong, how to repeat it."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from vitexp.errors import CheckpointError
from vitexp.files.folder import Folder
from vitexp.files.record import Evaluation, RunRecord, printable, read_record
from vitexp.report.metrics import ACCURACY, PRECISION, headlines, read_metrics
from vitexp.report.page import line, picture, render
from vitexp.report.text import duration, number

# Chart title -> its columns of metrics.csv and their names in the legend; a chart without any value is left out.
CHARTS = {
    "Loss (mean per image)": {"train/loss_step": "train", "val/loss": "val"},
    "Accuracy": {"train/top1": "train top-1", **dict(list(ACCURACY.items())[:2])},
    "Average precision": dict(list(PRECISION.items())[:2]),
    "Learning rate": {"lr": "lr"},
    "Gradient norm before clipping": {"train/grad_norm": "norm"},
}
CAPTIONS = {
    "confusion": "Confusion matrix on test",
    "mistakes": "The most confident mistakes on test",
    "batch": "The first training batch, as the model saw it",
    "detections": "Detections on test images, with classes and scores",
    "attention": "Where the decoder looks for each object it found",
    "queries": "Where the boxes of each query are, over the test images",
}
# COCO's twelve numbers: over IoU 0.5 to 0.95, all sizes and 100 detections an image, where nothing else is said.
TWELVE = {
    "map": "AP",
    "map_50": "AP at IoU 0.5",
    "map_75": "AP at IoU 0.75",
    "map_small": "AP, small objects",
    "map_medium": "AP, medium objects",
    "map_large": "AP, large objects",
    "mar_1": "AR, 1 detection",
    "mar_10": "AR, 10 detections",
    "mar_100": "AR",
    "mar_small": "AR, small objects",
    "mar_medium": "AR, medium objects",
    "mar_large": "AR, large objects",
}
_DRAWN_HERE = ("loss", "accuracy", "precision", "learning_rate")  # page.js draws these from the numbers
_LOG_LINES, _LOG_BYTES = 40, 2**16
_PICTURES_BYTES = 32 * 2**20  # of all pictures of a page together


def run_page(
    folder: Folder,
    record: RunRecord,
    *,
    state: str,
    asked: Sequence[tuple[str, str, str]],
    back: str = "",
    refresh: int = 0,
) -> str:
    """HTML of the run in a folder; what in it cannot be read is named on the page.

    Args:
        folder: of the run.
        record: its run.json.
        state: running, done, failed or interrupted.
        asked: key, value, default of each override.
        back: link to the list of runs, in the dashboard.
        refresh: seconds between reloads, while it runs.
    """
    problems: list[str] = []
    rows = rows_of(folder, problems)
    charts = curve_charts([("", rows)], {**CHARTS, **analysis_charts(rows)})
    chosen = record.get("chosen", {})
    context = {
        "title": folder.name,
        "name": folder.name,
        "state": state,
        "reason": record.get("reason") or "",
        "what": " · ".join(str(chosen.get(group, "?")) for group in ("model", "attention", "data", "regime")),
        "started": record.get("started", "?"),
        "duration": duration(record.get("duration_s")),
        "cards": _cards(record),
        "asked": asked,
        "lines": range(len(charts)),
        "twelve": _twelve(record),
        "pictures": _pictures(folder.sub("plots"), problems),
        "analyses": _analyses(folder.sub("analysis"), problems),
        "evaluations": _evaluations(folder.sub("evaluations"), problems),
        "log": _log(folder, problems) if state == "failed" else "",
        "command": command_of(record),
        "environment": _environment(record, folder),
        "back": back,
        "problems": problems,
    }
    return render("run.html", charts=charts, context=context, refresh=refresh)


def rows_of(folder: Folder, problems: list[str]) -> list[dict[str, float]]:
    """A run's metrics, none yet if it has not logged; `problems` gets why they cannot be read."""
    try:
        return read_metrics(folder.path / "metrics.csv") if folder.holds("metrics.csv") else []
    except CheckpointError as error:
        problems.append(str(error))
        return []


def curve_charts(
    runs: Sequence[tuple[str, Sequence[Mapping[str, float]]]], charts: Mapping[str, Mapping[str, str]] = CHARTS
) -> list[dict[str, Any]]:
    """The charts that the metrics of these (name, rows) allow; several runs are told apart by their names."""
    found = []
    for title, columns in charts.items():
        lines = [
            line(f"{name} {legend}".strip(), rows, column) for name, rows in runs for column, legend in columns.items()
        ]
        if kept := [one for one in lines if one is not None]:
            found.append({"title": title, "xlabel": "step", "series": kept})
    return found


def analysis_charts(rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, str]]:
    """Charts like CHARTS of what analyses measured more than once in training: one for each headline value."""
    charts: dict[str, dict[str, str]] = {}
    for column in dict.fromkeys(name for row in rows for name in row if name.count("/") > 1):
        if not column.startswith("analysis/"):
            continue
        _, analysis, *kind, value = column.split("/")
        if sum(column in row for row in rows) > 1:
            legend = " ".join([*kind, value]).replace("_", " ")
            charts.setdefault(f"{analysis.capitalize()}: {value.replace('_', ' ')}", {})[column] = legend
    return charts


def command_of(record: RunRecord) -> str:
    """The line that makes the run again, with the commit that made it."""
    commit, dirty = record.get("git_commit"), record.get("git_dirty")
    said = f"  # at commit {commit[:10]}{', with uncommitted changes' if dirty else ''}" if commit else ""
    return shlex.join(record.get("argv", ["vitexp"])) + said


def _cards(record: RunRecord) -> list[dict[str, str]]:
    metrics = record.get("metrics", {})
    cards = [{"name": name, "value": number(metrics[name])} for name in headlines(metrics)]
    return [*cards, {"name": "time of training", "value": duration(record.get("fit_seconds"))}]


def _twelve(record: RunRecord) -> list[tuple[str, str, str]]:
    """COCO's numbers of a detector in percent, val and test; a dash where the data has no such object."""
    metrics = record.get("metrics", {})
    if not PRECISION.keys() & metrics.keys():
        return []
    return [
        (text, _percent(metrics.get(f"val/{name}")), _percent(metrics.get(f"test/{name}")))
        for name, text in TWELVE.items()
    ]


def _percent(value: float | None) -> str:
    return "–" if value is None or value < 0 else f"{100 * value:.2f}"


def _pictures(folder: Folder, problems: list[str]) -> list[dict[str, Any]]:
    order = list(CAPTIONS)
    stems = [name.removesuffix(".png") for name in _images(folder, problems)]
    stems = [stem for stem in stems if stem not in _DRAWN_HERE]
    stems.sort(key=lambda stem: (order.index(stem) if stem in order else len(order), stem))
    named = [(folder, stem, CAPTIONS.get(stem, stem.replace("_", " "))) for stem in stems]
    return _embedded(named, problems)


def _analyses(folder: Folder, problems: list[str]) -> list[dict[str, Any]]:
    stems = [name.removesuffix(".png") for name in _images(folder, problems)]
    return _embedded([(folder, stem, stem.replace("_", " ")) for stem in stems], problems)


def _images(folder: Folder, problems: list[str]) -> list[str]:
    """The names of the PNG files in a folder of the run."""
    try:
        return [name for name in folder.entries() if name.endswith(".png") and not name.startswith(".")]
    except CheckpointError as error:
        problems.append(str(error))
        return []


def _embedded(named: Sequence[tuple[Folder, str, str]], problems: list[str]) -> list[dict[str, Any]]:
    """Pictures by folder, name and caption: regular files of the run folder, never what a link leads to."""
    found, left = [], _PICTURES_BYTES
    for folder, stem, caption in named:
        try:
            content = folder.read(f"{stem}.png", most=left)
        except (CheckpointError, FileNotFoundError) as error:
            problems.append(str(error))
            continue
        left -= len(content)
        found.append(picture(content, caption))
    return found


def _evaluations(folder: Folder, problems: list[str]) -> list[tuple[str, str, str]]:
    rows = []
    for name in _evaluated(folder, problems):
        try:
            record = read_record(folder.sub(name), "evaluation.json", Evaluation, advice="remove it")
        except FileNotFoundError:  # one of several sizes, or of several tasks
            continue
        except CheckpointError as error:
            problems.append(str(error))
            continue
        rows += [(name, metric, number(value)) for metric, value in sorted(record["metrics"].items())]
    return rows


def _evaluated(folder: Folder, problems: list[str]) -> list[str]:
    """The names of the folders of evaluations."""
    try:
        return [name for name, kind in folder.entries().items() if kind != "file"]
    except CheckpointError as error:
        problems.append(str(error))
        return []


def _log(folder: Folder, problems: list[str]) -> str:
    try:
        return printable("\n".join(folder.tail("log.txt", most=_LOG_BYTES).splitlines()[-_LOG_LINES:]))
    except FileNotFoundError:
        return ""
    except CheckpointError as error:
        problems.append(str(error))
        return ""


def _environment(record: RunRecord, folder: Folder) -> list[tuple[str, str]]:
    hardware, packages = record.get("hardware", {}), record.get("packages", {})
    rows = [
        ("folder", str(folder.path)),
        ("machine", f"{record.get('host', '?')}, {hardware.get('cpu', '?')}, {hardware.get('cores', '?')} cores"),
        ("system", str(hardware.get("system", "?"))),
        ("python", str(record.get("python", "?"))),
        ("seed", str(record.get("seed", "?"))),
    ]
    return rows + [(name, str(version)) for name, version in packages.items() if version]
