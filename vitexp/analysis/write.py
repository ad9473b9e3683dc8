"""An analysis in a folder: its numbers as CSV, its picture as PNG and SVG; and its headline values as a table."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from vitexp.analysis.base import Analysis
from vitexp.errors import ResourceError
from vitexp.report.table import value_table


def write(analysis: Analysis, measured: Mapping[str, Any], folder: Path, *, title: str) -> list[Path]:
    """Write `<name>.csv`, `<name>.png` and `<name>.svg`; returns the three.

    Args:
        analysis: what measured.
        measured: label (such as trained, untrained) -> what `measure` gave.
        folder: made if absent.
        title: model, checkpoint and data, for the picture.

    Raises:
        ResourceError: the folder cannot be written.
    """
    table, picture = folder / f"{analysis.name}.csv", folder / f"{analysis.name}.png"
    rows = [{"of": label, **row} for label, one in measured.items() for row in analysis.rows(one)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    except OSError as error:
        raise ResourceError(
            f"cannot write {table}: {error.strerror}; an analysis needs a few megabytes; free space, or outputs=FOLDER"
        ) from error
    analysis.draw(measured, picture, title)
    return [table, picture, picture.with_suffix(".svg")]


def summary_table(analysis: Analysis, measured: Mapping[str, Any]) -> RenderableType:
    """Headline values, one a row, a column for each measurement."""
    columns = {label: analysis.summary(one) for label, one in measured.items()}
    names = dict.fromkeys(name for values in columns.values() for name in values)
    rows = [[name, *(values.get(name) for values in columns.values())] for name in names]
    return value_table([analysis.name, *columns], rows)


def _cell(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
