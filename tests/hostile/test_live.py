"""A run is read while it is written: no traceback, no half number, no row that was never logged."""

import os
import threading
from pathlib import Path

import pytest

from vitexp.files.folder import Folder
from vitexp.files.lock import Lock
from vitexp.logger.metrics_file import MetricsFile
from vitexp.report.metrics import read_metrics
from vitexp.run.folder import Run, survey
from vitexp.verb.dashboard import index_page
from vitexp.verb.report import write_run_page


def logged(step: int) -> dict[str, float]:
    """The values of a step, each of which tells whether another belongs to it."""
    return {"epoch": step // 10, "train/loss_step": step / 8, **({"val/loss": step / 4} if step % 10 == 0 else {})}


def require_logged(rows: list[dict[str, float]]) -> None:
    """Every value is one that was logged at its step; the last row may still lack some."""
    for row in rows:
        step = int(row["step"])
        assert {"step": step, **logged(step)}.items() >= row.items(), row
    for row in rows[:-1]:
        assert row.keys() == {"step", *logged(int(row["step"]))}, row


def write(folder: Path, stop: threading.Event, rounds: int) -> None:
    """Log and keep the record as a run does, the values of a step in two parts."""
    run = Run(folder)
    file = MetricsFile(folder / "metrics.csv")
    step = 0
    while not stop.is_set() or step < rounds:
        step += 1
        values = logged(step)
        file.log({"epoch": values.pop("epoch")}, step)
        file.log(values, step)
        run.update(state="running", epochs=3, duration_s=float(step), reason="x" * (step % 700))
    file.finish(0)


def read_beside(outputs: Path, rounds: int, *, pages: int) -> None:
    folder = outputs / "2026-01-01/101500-live-ab12"
    (folder / "plots").mkdir(parents=True)
    run = Run(folder)
    run.update(state="running", started="2026", epochs=3, chosen={"model": "vit_nano"})
    Folder(folder).write_text("overrides.txt", "")
    stop = threading.Event()
    writer = threading.Thread(target=write, args=(folder, stop, rounds))
    writer.start()
    try:
        seen = 0
        for number in range(rounds):
            (found,), wrecks = survey(outputs)
            assert not wrecks
            assert found.record.get("epochs") == 3
            if "metrics.csv" in found.folder.entries():
                rows = read_metrics(folder / "metrics.csv")
                require_logged(rows)
                assert len(rows) >= seen - 1
                seen = len(rows)
            if number % (rounds // pages) == 0:
                assert "101500-live-ab12" in index_page(outputs)
                assert "What could not be read" not in write_run_page(found).read_text()
    finally:
        stop.set()
        writer.join()
    assert seen > 1


def test_a_live_run_is_read_beside(tmp_path: Path) -> None:
    read_beside(tmp_path, 60, pages=2)


@pytest.mark.slow
def test_a_live_run_is_read_beside_two_hundred_times(tmp_path: Path) -> None:
    read_beside(tmp_path, 200, pages=200)


@pytest.mark.parametrize("cut", range(1, 24))
def test_a_last_line_that_is_cut_anywhere_is_left_out(cut: int, tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.csv")
    for step in (1, 2, 3):
        file.log({"lr": 0.125 * step, "val/loss": 12.25 * step}, step)
    file.finish(0)
    whole = (tmp_path / "metrics.csv").read_bytes()
    (tmp_path / "metrics.csv").write_bytes(whole[:-cut])
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [row["val/loss"] for row in rows] == [12.25, 24.5][: len(rows)]
    assert len(rows) >= 1


def test_looking_at_a_lock_does_not_keep_the_next_run_from_it(tmp_path: Path) -> None:
    lock, looker, stop = Lock(Folder(tmp_path), ".lock"), Lock(Folder(tmp_path), ".lock"), threading.Event()
    assert lock.acquire()
    lock.release()

    def look() -> None:
        while not stop.is_set():
            looker.is_held()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(200):
            assert lock.acquire()
            lock.release()
        assert lock.acquire()
        assert not Lock(Folder(tmp_path), ".lock").acquire()
    finally:
        stop.set()
        thread.join()


def test_a_lock_is_looked_at_and_never_made_or_changed(tmp_path: Path) -> None:
    assert not Lock(Folder(tmp_path), ".lock").is_held()
    assert not os.listdir(tmp_path)
    (tmp_path / ".lock").write_text("kept")
    assert not Lock(Folder(tmp_path), ".lock").is_held()
    assert (tmp_path / ".lock").read_text() == "kept"
