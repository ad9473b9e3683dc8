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
from vitexp.logger import choose as module
from vitexp.logger.choose import CHOICES, build_loggers, close_loggers, log_picture, wandb_id
from vitexp.logger.metrics_file import MetricsFile, read_metrics


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


def build(folder: Path, choice: str, **fields: Any) -> list[Any]:
    given: dict[str, Any] = {"config": {}, "group": None, "resume_step": None, "wandb_id": None}
    return build_loggers(settings(choice), run_dir=folder, run_name="r", **{**given, **fields})


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
            module.WandbSettings(**found.pop("wandb"))
        if choice in ("auto", "tensorboard"):
            assert set(found.pop("tensorboard")) == {"flush_seconds"}
        assert found == {}


@pytest.mark.parametrize("choice", ["auto", "tensorboard", "csv", "none"])
def test_without_an_account_wandb_is_not_even_imported(tmp_path: Path, choice: str) -> None:
    imported = "wandb" in sys.modules
    loggers = build(tmp_path, choice)
    kinds = [type(logger).__name__ for logger in loggers]
    assert kinds == (["MetricsFile", "Events"] if choice in ("auto", "tensorboard") else ["MetricsFile"])
    assert ("wandb" in sys.modules) == imported
    assert wandb_id(loggers) is None
    close_loggers(loggers, exit_code=0)


def test_all_loggers_have_the_same_names(tmp_path: Path) -> None:
    loggers = build(tmp_path, "tensorboard")
    for logger in loggers:
        logger.log_metrics({"train/loss_step": 0.5, "epoch": 0}, step=3)
        logger.log_metrics({"val/top1": 0.25}, step=3)
        logger.save()
        logger.log_hyperparams({"api_key": "x"})
    close_loggers(loggers, exit_code=0)
    assert read_metrics(tmp_path / "metrics.csv") == [{"step": 3, "epoch": 0, "train/loss_step": 0.5, "val/top1": 0.25}]
    found = scalars(tmp_path)
    assert found["train/loss_step"] == [(3, 0.5)]
    assert found["val/top1"] == [(3, 0.25)]
    assert [path.name[:6] for path in (tmp_path / "tensorboard").iterdir()] == ["events"]  # no hparams.yaml


def test_resume_hides_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    for resume, steps in ((None, range(1, 11)), (6, range(7, 12))):
        loggers = build(tmp_path, "tensorboard", resume_step=resume)
        for logger in loggers:
            for step in steps:
                logger.log_metrics({"lr": float(step)}, step=step)
        close_loggers(loggers, exit_code=0)
    assert [step for step, _ in scalars(tmp_path)["lr"]] == list(range(1, 12))
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.csv")] == list(range(1, 12))


def test_pictures_go_where_pictures_can(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = tmp_path / "loss.png"
    Image.fromarray(np.full((4, 6, 3), 200, np.uint8)).save(path)
    loggers = build(tmp_path, "tensorboard")
    log_picture(loggers, "loss", path, 7)
    close_loggers(loggers, exit_code=0)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (image,) = events.Images("loss")
    assert (image.step, image.width, image.height) == (7, 6, 4)


def test_logging_goes_on_after_lightning_has_finalized(tmp_path: Path) -> None:
    loggers = build(tmp_path, "tensorboard")
    for step in (1, 2):
        for logger in loggers:
            logger.log_metrics({"lr": 0.5}, step=step)
            logger.finalize("success")
    close_loggers(loggers, exit_code=0)
    assert [step for step, _ in scalars(tmp_path)["lr"]] == [1, 2]
    assert isinstance(loggers[0], MetricsFile)


def test_a_key_for_wandb_without_its_package_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert [type(logger).__name__ for logger in build(tmp_path, "auto")] == ["MetricsFile", "Events"]
    (record,) = caplog.records
    assert "pip install 'vitexp[wandb]'" in record.message


def test_an_unknown_choice_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="use auto, tensorboard"):
        build_loggers(
            {"choice": "wb"}, run_dir=tmp_path, run_name="r", config={}, group=None, resume_step=None, wandb_id=None
        )
