"""MLflow and Trackio with a real local store: metrics, configuration, picture; a resume goes on with the same run."""

import importlib
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitexp.logger.choose import trackers
from vitexp.logger.tracker import RunLogger, Session

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of these packages' own dependencies
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),  # MLflow's, at its end
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def package(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"pip install 'vitexp[{name}]'", exc_type=ImportError)


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def twice(folder: Path, choice: str, own: dict[str, Any]) -> dict[str, str]:
    """Log two sessions of a run, the second from the checkpoint at step 3; its id."""
    picture = folder / "p.png"
    Image.fromarray(np.full((4, 6, 3), 200, np.uint8)).save(picture)
    ids: dict[str, str] = {}
    for resume, steps in ((None, (1, 2, 3, 4)), (3, (4, 5))):
        config = {"outputs": str(folder), "optimizer": {"lr": 0.5}, "seed": 3}
        session = Session(
            run_dir=folder / "run",
            run_name="0-seed=3",
            config=config,
            group="2026-12-01_101500",
            resume_step=resume,
            ids=ids,
        )
        logger = RunLogger(trackers({"choice": choice, choice: own}, session))
        assert not ids or logger.ids == ids
        ids = logger.ids
        for step in steps:
            logger.log_metrics({"epoch": 0, "train/loss_step": 1 / step}, step)
        logger.log_metrics({"val/top1": float("nan")}, 3)
        logger.log_picture("analysis/similarity", picture, steps[-1])
        logger.close(exit_code=0 if resume else 130)
    return ids


@pytest.mark.slow  # MLflow takes seconds to be imported and to make its tables
def test_mlflow_in_its_sqlite_file(tmp_path: Path) -> None:
    mlflow = package("mlflow")
    own = {"experiment": "vitexp", "tracking_uri": None, "flush_seconds": 10}
    ids = twice(tmp_path, "mlflow", own)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("vitexp").experiment_id])
    assert {"mlflow": run.info.run_id} == ids
    assert (run.info.run_name, run.info.status) == ("0-seed=3", "FINISHED")
    assert run.data.tags["sweep"] == "2026-12-01_101500"
    assert {"optimizer.lr": "0.5", "seed": "3"}.items() <= run.data.params.items()
    rows = {row.step: row.value for row in client.get_metric_history(run.info.run_id, "train/loss_step")}
    assert rows == {step: pytest.approx(1 / step) for step in range(1, 6)}
    assert any("analysis~similarity" in file.name for file in (tmp_path / "mlflow").rglob("*.png"))


def test_a_server_of_mlflow_that_does_not_answer_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    package("mlflow")
    own = {"experiment": "vitexp", "tracking_uri": "http://127.0.0.1:9", "flush_seconds": 10}
    session = Session(
        run_dir=tmp_path, run_name="r", config={"outputs": "o"}, group=None, resume_step=None, ids={"mlflow": "x"}
    )
    with caplog.at_level(logging.WARNING, "vitexp"):
        assert trackers({"choice": "mlflow", "mlflow": own}, session) == []
    (line,) = [record.message for record in caplog.records if record.name.startswith("vitexp")]
    assert "the run goes on without it" in line


def test_trackio_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)  # it reads $TRACKIO_DIR when it is imported
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))
    package("trackio")
    storage = importlib.import_module("trackio.sqlite_storage").SQLiteStorage
    ids = twice(tmp_path, "trackio", {"project": "vitexp"})
    assert ids == {"trackio": "2026-12-01_101500/0-seed=3"}
    (name,) = storage.get_runs("vitexp")
    config = storage.get_run_config("vitexp", name)
    assert (config["optimizer"], config["_Group"]) == ({"lr": 0.5}, "2026-12-01_101500")
    logs = storage.get_logs("vitexp", name)
    rows = {row["step"]: row["train/loss_step"] for row in logs if "train/loss_step" in row}
    assert rows == {step: pytest.approx(1 / step) for step in range(1, 6)}
    assert {row["step"] for row in logs if "analysis/similarity" in row} == {4, 5}
    assert list((tmp_path / "store").rglob("*.png"))
    assert capsys.readouterr().out == ""
