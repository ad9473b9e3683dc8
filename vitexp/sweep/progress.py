"""The progress of a job, from the files in its folder, for the screen and for a pruner."""

from datetime import datetime

from vitexp.errors import VitexpError
from vitexp.report.metrics import read_metrics
from vitexp.report.sweep_screen import Line
from vitexp.run.folder import open_run
from vitexp.sweep.folder import Job, read_job


def progress(job: Job, now: float) -> Line:
    """The line of a running job; `now` is time.time()."""
    rows = metrics_of(job)
    epoch = next((row["epoch"] for row in reversed(rows) if "epoch" in row), None)
    name, sign = monitor_of(job) or ("", 1)
    values = [row[name] for row in rows if name in row]
    started = _started(job)
    return Line(
        label=job.label,
        where=f"epoch {int(epoch) + 1}/{job.record['epochs']}" if epoch is not None else "starting",
        fraction=None if epoch is None else min(1.0, (epoch + 1) / max(1, job.record["epochs"])),
        best="" if not values else f"{name} {sign * max(sign * value for value in values):.4f}",
        seconds=job.record["seconds"] + (now - started if started else 0.0),
    )


def metrics_of(job: Job) -> list[dict[str, float]]:
    """The rows of its metrics.csv so far."""
    try:
        return read_metrics(job.path / "metrics.csv")
    except VitexpError:
        return []


def monitor_of(job: Job) -> tuple[str, int] | None:
    """The metric that its task selects by, and whether more (+1) or less (-1) is better; None before it trains."""
    try:
        return open_run(job.folder).record["monitor"]
    except (VitexpError, KeyError):
        return None


def _started(job: Job) -> float | None:
    try:
        return datetime.fromisoformat(read_job(job.folder)["started"]).timestamp()
    except (VitexpError, KeyError, ValueError):
        return None
