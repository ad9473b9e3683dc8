"""An analysis in a folder: its numbers as CSV, its picture as PNG and SVG; and its headline values as a table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from vitexp.analysis.base import Analysis
from vitexp.errors import ResourceError
from vitexp.files.folder import Folder
from vitexp.report.table import csv_text, value_table


def write(analysis: Analysis, measured: Mapping[str, Any], folder: Folder, *, title: str) -> list[Path]:
    """Write `<name>.csv`, `<name>.png` and `<name>.svg`; returns the three.

    Args:
        analysis: what measured.
        measured: label (such as trained, untrained) -> what `measure` gave.
        folder: made if absent.
        title: model, checkpoint and data, for the picture.

    Raises:
        ResourceError: the folder cannot be written.
    """
    table, picture = folder.path / f"{analysis.name}.csv", folder.path / f"{analysis.name}.png"
    rows = [{"of": label, **row} for label, one in measured.items() for row in analysis.rows(one)]
    try:
        columns = list(rows[0])
        text = csv_text(columns, [[_cell(row.get(name, "")) for name in columns] for row in rows])
        folder.made().write_text(table.name, text)
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
