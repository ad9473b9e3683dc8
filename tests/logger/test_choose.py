"""Which loggers `logger=` gives, and that each has the metrics and the pictures."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from vitexp.config.compose import conf_dir
from vitexp.config.releases import VERSION_BASE
from vitexp.errors import ConfigError
from vitexp.logger.choose import CHOICES, build_logger, without_secrets
from vitexp.logger.metrics_file import read_metrics
from vitexp.logger.tracker import RunLogger, Session
from vitexp.logger.wandb import WandbSettings


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


def settings(choice: str) -> dict[str, Any]:
    with initialize_config_dir(str(conf_dir() / "logger"), **VERSION_BASE):
        found = OmegaConf.to_container(compose(choice), resolve=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def build(folder: Path, choice: str, **fields: Any) -> RunLogger:
    given: dict[str, Any] = {"config": {"outputs": str(folder)}, "group": None, "resume_step": None, "ids": {}}
    session = Session(run_dir=folder, run_name="r", **{**given, **fields})
    return build_logger(settings(choice), session)


def kinds(logger: RunLogger) -> list[str]:
    return [tracker.name for tracker in logger.trackers]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_every_shipped_file_is_a_choice_and_names_only_used_keys() -> None:
    assert {path.stem for path in (conf_dir() / "logger").glob("*.yaml")} == set(CHOICES)
    for choice in CHOICES:
        found = settings(choice)
        assert found.pop("choice") == choice
        if choice in ("auto", "wandb"):
            WandbSettings(**found.pop("wandb"))
        if choice in ("auto", "tensorboard"):
            assert set(found.pop("tensorboard")) == {"flush_seconds"}
        if choice == "mlflow":
            assert set(found.pop("mlflow")) == {"experiment", "tracking_uri", "flush_seconds"}
        if choice == "trackio":
            assert set(found.pop("trackio")) == {"project"}
        assert found == {}


@pytest.mark.parametrize("choice", ["auto", "tensorboard", "csv", "none"])
def test_without_an_account_wandb_is_not_even_imported(tmp_path: Path, choice: str) -> None:
    imported = "wandb" in sys.modules
    logger = build(tmp_path, choice)
    assert kinds(logger) == (["metrics", "tensorboard"] if choice in ("auto", "tensorboard") else ["metrics"])
    assert ("wandb" in sys.modules) == imported
    assert logger.ids == {}
    logger.close(exit_code=0)


def test_all_loggers_have_the_same_names(tmp_path: Path) -> None:
    logger = build(tmp_path, "tensorboard")
    logger.log_metrics({"train/loss_step": 0.5, "epoch": 0}, step=3)
    logger.log_metrics({"val/top1": 0.25}, step=2)
    logger.save()
    logger.log_hyperparams({"api_key": "x"})
    logger.close(exit_code=0)
    assert read_metrics(tmp_path / "metrics.csv") == [{"step": 3, "epoch": 0, "train/loss_step": 0.5, "val/top1": 0.25}]
    found = scalars(tmp_path)
    assert found["train/loss_step"] == [(3, 0.5)]
    assert found["val/top1"] == [(3, 0.25)]
    assert [path.name[:6] for path in (tmp_path / "tensorboard").iterdir()] == ["events"]  # no hparams.yaml


def test_resume_hides_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    for resume, steps in ((None, range(1, 11)), (6, range(7, 12))):
        logger = build(tmp_path, "tensorboard", resume_step=resume)
        for step in steps:
            logger.log_metrics({"lr": float(step)}, step=step)
        logger.close(exit_code=0)
    assert [step for step, _ in scalars(tmp_path)["lr"]] == list(range(1, 12))
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.csv")] == list(range(1, 12))


def test_pictures_go_where_pictures_can(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = tmp_path / "loss.png"
    Image.fromarray(np.full((4, 6, 3), 200, np.uint8)).save(path)
    logger = build(tmp_path, "tensorboard")
    logger.log_picture("loss", path, 7)
    logger.close(exit_code=0)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (image,) = events.Images("loss")
    assert (image.step, image.width, image.height) == (7, 6, 4)


def test_logging_goes_on_after_lightning_has_finalized(tmp_path: Path) -> None:
    logger = build(tmp_path, "tensorboard")
    for step in (1, 2):
        logger.log_metrics({"lr": 0.5}, step=step)
        logger.finalize("success")
    logger.close(exit_code=0)
    assert [step for step, _ in scalars(tmp_path)["lr"]] == [1, 2]


def test_a_key_for_wandb_without_its_package_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setitem(sys.modules, "wandb", None)
    logger = build(tmp_path, "auto")
    assert kinds(logger) == ["metrics", "tensorboard"]
    logger.close(exit_code=0)
    (record,) = caplog.records
    assert "pip install 'vitexp[wandb]'" in record.message


def test_an_unknown_choice_lists_the_known(tmp_path: Path) -> None:
    session = Session(run_dir=tmp_path, run_name="r", config={}, group=None, resume_step=None, ids={})
    with pytest.raises(ConfigError, match="use auto, tensorboard"):
        build_logger({"choice": "wb"}, session)


@pytest.mark.parametrize("choice", ["wandb", "mlflow", "trackio"])
def test_a_tracker_that_is_not_installed_names_its_extra(
    choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, choice, None)
    with pytest.raises(ConfigError, match=rf"logger={choice} needs .* pip install 'vitexp\[{choice}\]'"):
        build(tmp_path, choice)
    assert not list(tmp_path.iterdir())


def test_the_further_processes_of_a_run_show_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert kinds(build(tmp_path, "tensorboard")) == []
    assert not list(tmp_path.iterdir())


def test_secrets_go_and_settings_stay() -> None:
    config = {
        "model": {"pool": "class_token", "num_tokens": 4, "token": 3},
        "hub": {"access_token": "x", "api_key": "x"},
        "Password": "x",
        "secret": None,
    }
    kept = {"model": config["model"], "hub": {}, "secret": None}
    assert without_secrets(config) == kept
