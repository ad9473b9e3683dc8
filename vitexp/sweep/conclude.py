"""The end of a sweep: its leaderboard, `sweep.csv`, the picture, the page, and which jobs failed."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from vitexp.errors import CheckpointError, SweepError
from vitexp.files.folder import Folder
from vitexp.report.console import make_console
from vitexp.report.plot_sweep import against, analyses_against
from vitexp.report.screen import say
from vitexp.report.table import csv_text, sweep_table
from vitexp.report.text import clean
from vitexp.sweep.folder import FINISHED, Job, Sweep
from vitexp.verb.report import write_comparison

_KEPT = ("number", "overrides", "state", "exit_code", "reason", "attempts", "seconds")


def conclude(sweep: Sweep, *, quiet: bool) -> int:
    """Print the table and write the files; 0 if every job is done.

    Raises:
        SweepError: some failed, were killed or interrupted.
    """
    rows = [row_of(job) for job in sweep.jobs]
    make_console().print(sweep_table(rows))
    write_table(rows, sweep.folder)
    sweep.update(jobs=[{key: value for key, value in job.record.items() if key in _KEPT} for job in sweep.jobs])
    against(rows, sweep.path / "sweep.png", title=sweep.path.name)
    analyses_against(rows, sweep.path, title=sweep.path.name)
    if sweep.record["verb"] == "train":
        _compare(sweep, quiet=quiet)
    failed = [job for job in sweep.jobs if job.state not in FINISHED]
    for job in failed:
        Console(stderr=True).print(f"job {job.label} {_how(job)}", style="red", markup=False, soft_wrap=True)
    if failed:
        raise SweepError(
            f"{len(failed)} of {len(sweep.jobs)} jobs failed; the table and {sweep.path}/sweep.csv say which,"
            " the same command runs them again"
        )
    return 0


def _compare(sweep: Sweep, *, quiet: bool) -> None:
    """The page of all runs; why there is none is said, and hides no job's end."""
    try:
        say(f"{write_comparison(str(sweep.path), sweep.path.parent)} compares the runs", quiet=quiet)
    except CheckpointError as error:
        Console(stderr=True).print(f"no page compares the runs: {clean(str(error))}", markup=False, soft_wrap=True)


def row_of(job: Job) -> dict[str, Any]:
    """A job as the tables take it."""
    return {"overrides": job.swept, "state": job.state, "metrics": job.record["metrics"]}


def write_table(rows: Sequence[dict[str, Any]], folder: Folder) -> None:
    """`sweep.csv`, one row a job: overrides, state, metrics."""
    metrics = sorted({name for row in rows for name in row["metrics"]})
    keys = sorted({key for row in rows for key in row["overrides"]})
    flat = [{**row["overrides"], "state": row["state"], **row["metrics"]} for row in rows]
    columns = [*keys, "state", *metrics]
    folder.write_text("sweep.csv", csv_text(columns, [[row.get(name, "") for name in columns] for row in flat]))


def _how(job: Job) -> str:
    if job.state == "waiting":
        return "was not started"
    if job.state == "running" and job.is_busy():
        return "still runs elsewhere"
    return f"{job.state}: {clean(job.record['reason'] or 'its process is gone')}"
