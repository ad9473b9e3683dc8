"""The most likely classes of images: as rows, and the rows as `predictions.csv`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from vitexp.files.folder import Folder
from vitexp.report.table import csv_text

TOP = 5


def ranked(probabilities: Tensor, paths: Sequence[Path], classes: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each image: its path, and the most likely classes with their probabilities (B, K), best first."""
    confidence, labels = probabilities.topk(min(TOP, len(classes)))
    return [
        {"image": str(path), "classes": [classes[i] for i in row], "probabilities": values}
        for path, row, values in zip(paths, labels.tolist(), confidence.tolist(), strict=True)
    ]


def write_predictions(folder: Folder, rows: Mapping[str | None, Sequence[Mapping[str, Any]]]) -> Path:
    """Write predictions.csv, a line for each row; `rows` are by the name of their task, None where there is but one."""
    top = max(len(row["classes"]) for found in rows.values() for row in found)
    named = [] if None in rows else ["task"]
    columns = ["image", *named, *(f"{what}{n}" for n in range(1, top + 1) for what in ("class", "probability"))]
    lines = []
    for task, found in rows.items():
        for row in found:
            best = zip(row["classes"], row["probabilities"], strict=True)
            cells = [item for label, value in best for item in (label, f"{value:.6f}")]
            lines.append([row["image"], *([] if task is None else [task]), *cells])
    return folder.write_text("predictions.csv", csv_text(columns, lines))
