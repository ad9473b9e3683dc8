"""The loggers of a run: metrics.csv always, TensorBoard and wandb as `logger=` says, with the same metric names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from vitexp.errors import ConfigError
from vitexp.logger.metrics_file import MetricsFile
from vitexp.logger.wandb import WandbLogger, WandbSettings, start_wandb

CHOICES = ("auto", "tensorboard", "csv", "wandb", "none")


def build_loggers(
    settings: Mapping[str, Any],
    *,
    run_dir: Path,
    run_name: str,
    config: Mapping[str, Any],
    group: str | None,
    resume_step: int | None,
    wandb_id: str | None,
) -> list[Logger]:
    """The loggers for `logger=`, metrics.csv first.

    Args:
        settings: `choice`, and the keys of that choice's file in conf/logger/.
        run_dir: the run folder, which exists.
        run_name: its name.
        config: the resolved configuration.
        group: name of the sweep, if any.
        resume_step: None for a new run, else the step of the checkpoint it goes on from.
        wandb_id: from an earlier session, see `wandb_id`.

    Raises:
        ConfigError: an unknown choice, or metrics of another run in the folder.
        ResourceError: the folder cannot be written.
    """
    choice = settings["choice"]
    if choice not in CHOICES:
        raise ConfigError(f"logger.choice={choice} is not known; use {', '.join(CHOICES)}")
    metrics = MetricsFile(Path(run_dir) / "metrics.csv", resume_step=resume_step)
    others = viewers(
        settings,
        run_dir=run_dir,
        run_name=run_name,
        config=config,
        group=group,
        resume_step=resume_step,
        wandb_id=wandb_id,
    )
    return [metrics, *others]


def viewers(
    settings: Mapping[str, Any],
    *,
    run_dir: Path,
    run_name: str,
    config: Mapping[str, Any],
    group: str | None,
    resume_step: int | None,
    wandb_id: str | None,
) -> list[Logger]:
    """Of the loggers for `logger=` those that also take pictures: TensorBoard's and wandb's."""
    choice, loggers = settings["choice"], list[Logger]()
    if choice in ("auto", "tensorboard"):
        purge = None if resume_step is None else resume_step + 1
        loggers.append(Events(run_dir, flush_seconds=settings["tensorboard"]["flush_seconds"], purge_step=purge))
    if choice in ("auto", "wandb") and getattr(rank_zero_only, "rank", 0) == 0:
        run = start_wandb(
            WandbSettings(**settings["wandb"]),
            forced=choice == "wandb",
            run_dir=Path(run_dir),
            run_name=run_name,
            config=config,
            group=group,
            wandb_id=wandb_id,
        )
        loggers += [] if run is None else [run]
    return loggers


def wandb_id(loggers: Sequence[Logger]) -> str | None:
    """The id of the wandb run, to be kept for a resume; None without one."""
    return next((logger.version for logger in loggers if isinstance(logger, WandbLogger)), None)


def log_picture(loggers: Sequence[Logger], name: str, path: Path, step: int) -> None:
    """Show a PNG as `name` in every logger that takes pictures."""
    for logger in loggers:
        if isinstance(logger, Events | WandbLogger):
            logger.log_picture(name, path, step)


def close_loggers(loggers: Sequence[Logger], *, exit_code: int) -> None:
    """The last call of a run, after the last picture: flush all, end the wandb run with `exit_code` (0 is success)."""
    for logger in loggers:
        logger.finalize("success" if exit_code == 0 else "failed")
        if isinstance(logger, WandbLogger):
            logger.close(exit_code=exit_code)


class Events(TensorBoardLogger):
    """Lightning's TensorBoard logger in `tensorboard/` of the run folder, flushed by time instead of at every row."""

    def __init__(self, run_dir: Path, *, flush_seconds: float, purge_step: int | None) -> None:
        """`purge_step`: rows from this step on, of an earlier session, are hidden."""
        super().__init__(
            save_dir=run_dir,
            name="tensorboard",
            version="",
            default_hp_metric=False,
            flush_secs=flush_seconds,
            purge_step=purge_step,
        )

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the configuration is in config.yaml, without secrets."""

    def save(self) -> None:
        """Nothing: the writer flushes by itself every `flush_seconds`, and when it is closed."""

    @rank_zero_only
    def log_picture(self, name: str, path: Path, step: int) -> None:
        """Add a PNG."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        self.experiment.add_image(name, pixels, step, dataformats="HWC")
