"""The run's own metrics.csv: one row a logging step, whole and on disk as soon as it is logged.

Lightning's CSVLogger keeps all rows in memory and writes the file again at each flush; here a row costs one system
call. Columns may appear later (the first validation, the test): the file is then rewritten once, through a temporary
file beside it. After a kill the file holds every row that was logged, and a resume drops those past its checkpoint, so
the steps of an interrupted run are those of an uninterrupted one.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from vitexp.errors import CheckpointError, ConfigError, ResourceError
from vitexp.files.folder import Folder
from vitexp.report.metrics import COLUMNS, read_cells, read_metrics

__all__ = ["MetricsFile", "read_metrics"]


class MetricsFile:
    """Write what is logged to `path`, one row a step: strictly increasing steps, the values of one step in one row.

    Values have nine significant digits, which is exact for float32. A step below the last one lands in the last row:
    Lightning numbers a validation by the index of the last step, one less than the count of steps done.
    """

    name = "metrics"
    id = None
    errors = ()

    def __init__(self, path: Path, *, resume_step: int | None = None) -> None:
        """Start the file, or go on with it.

        Args:
            path: the file; its folder exists.
            resume_step: None for a new run; else rows of later steps are dropped (-1 drops all).

        Raises:
            ConfigError: a new run in a folder that has metrics already.
            ResourceError: the file cannot be written.
        """
        self.path = Path(path)
        self._folder = Folder(self.path.parent)
        self._columns: list[str] = ["step", "epoch"]
        self._row: dict[str, str] = {}  # the last row, which may still grow
        self._start = 0  # where it begins in the file, in bytes
        self._end = 0
        self._file: int | None = None
        self._begin(resume_step)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Add the values to the row of `step`, on disk when this returns.

        Raises:
            ResourceError: disk full or not writable.
        """
        cells = {name: _cell(value) for name, value in metrics.items()}
        if step > (int(self._row["step"]) if self._row else -1):
            self._start = self._end
            self._row = {"step": str(step)}
        self._row.update(cells)
        with _disk(self.path):
            if cells.keys() <= set(self._columns):
                self._write_row()
            else:
                self._rewrite(self._earlier_rows(), cells)

    def picture(self, name: str, path: Path, step: int) -> None:
        """Nothing: pictures are in the run folder already."""

    def finish(self, exit_code: int) -> None:
        """Make the rows survive a power cut too; logging may go on afterwards."""
        if self._file is not None:
            with _disk(self.path):
                os.fsync(self._file)
            os.close(self._file)
            self._file = None

    def _begin(self, resume_step: int | None) -> None:
        exists = self._folder.holds(self.path.name)
        if exists and resume_step is None:
            raise ConfigError(
                f"{self.path} holds the metrics of another run; a new run needs a folder of its own; "
                f"continue that run with `vitexp resume run={self.path.parent.name}`, or choose another name="
            )
        rows = list(_increasing(read_cells(self.path), -1 if resume_step is None else resume_step)) if exists else []
        if rows:
            self._row = rows.pop()
            self._columns = list(self._row)
        with _disk(self.path):
            self._rewrite(rows, {})

    def _write_row(self) -> None:
        """Put the last row in its place, over its earlier state."""
        if self._file is None:
            with self._folder.updating(self.path.name) as descriptor:
                self._file = os.dup(descriptor)
        line = _line(self._row, self._columns)
        position = self._start
        while line:
            written = os.pwrite(self._file, line, position)
            line, position = line[written:], position + written
        if position < self._end:
            os.ftruncate(self._file, position)
        self._end = position

    def _rewrite(self, rows: list[dict[str, str]], new: Mapping[str, str]) -> None:
        """Write the whole file with the columns `new` added: temporary file, fsync, rename."""
        self._columns = _ordered({*self._columns, *new})
        if self._file is not None:
            os.close(self._file)
            self._file = None
        body = b"".join([_line(dict(zip(self._columns, self._columns, strict=True)), self._columns)])
        body += b"".join(_line(row, self._columns) for row in rows)
        self._start = len(body)
        body += _line(self._row, self._columns) if self._row else b""
        self._end = len(body)
        with self._folder.writing(self.path.name) as part:
            part.write_bytes(body)

    def _earlier_rows(self) -> list[dict[str, str]]:
        """The rows on disk before the last one."""
        return [row for row in read_cells(self.path) if _step(row) < _step(self._row)]


def _step(row: Mapping[str, str]) -> int:
    """The step of a row, or CheckpointError: the file may have come from anywhere before the run went on with it."""
    step = row.get("step", "")
    if not (step.isascii() and step.isdigit() and len(step) < 16):
        raise CheckpointError(f"metrics.csv is damaged (a row with step {step[:40]}); copy the run again")
    return int(step)


def _increasing(rows: Iterator[dict[str, str]], highest: int) -> Iterator[dict[str, str]]:
    """The rows up to step `highest`, without any that does not come after its predecessor."""
    last = -1
    for row in rows:
        step = _step(row)
        if last < step <= highest:
            last = step
            yield row


def _ordered(names: set[str]) -> list[str]:
    """The documented columns in their order, then the others by name."""
    return [name for name in COLUMNS if name in names] + sorted(names - COLUMNS.keys())


def _line(row: Mapping[str, str], columns: list[str]) -> bytes:
    return (",".join(row.get(name, "") for name in columns) + "\n").encode()


def _cell(value: float) -> str:
    return f"{float(value):.9g}"


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Tell the user what to free when the disk refuses."""
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"cannot write {path}: {error.strerror}; the metrics need a few megabytes and a writable folder; "
            f"free space there, then `vitexp resume run={path.parent.name}`"
        ) from error
