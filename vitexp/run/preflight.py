"""Checks for what would stop a training at its first step, while nothing is written: devices, batches, optimizer."""

from typing import Any

from omegaconf import DictConfig

from vitexp import build
from vitexp.errors import ConfigError, VitexpError, first_line
from vitexp.logger.choose import require_choice


def require_ready(cfg: DictConfig, data: Any, task: Any) -> None:
    """Make what Lightning makes when a training begins, and let go of it.

    Args:
        cfg: the whole configuration.
        data: the data module; its training images are read.
        task: the task around the model, which stays as it is.

    Raises:
        ConfigError: a logger that is not installed, devices that are not here, a batch that they cannot share, an
            optimizer, schedule or analysis that does not take its values.
        DataError: no image to train on.
    """
    if "_target_" in cfg.logger:
        build.make(cfg.logger, trust=cfg.trust)
    else:
        require_choice(cfg.logger.choice)
    data.trainer = build.build_trainer(cfg, callbacks=[], loggers=[], folder=cfg.outputs)
    try:
        steps = data.steps_per_epoch  # which depend on the number of processes
    finally:
        data.trainer = None
    try:
        task.optimization(steps * cfg.epochs, steps)
    except VitexpError:
        raise
    except (ValueError, TypeError, IndexError) as error:
        chosen = f"optimizer={cfg.chosen.optimizer} schedule={cfg.chosen.schedule}"
        groups = {"optimizer": cfg.optimizer, "schedule": cfg.schedule}
        empty = [f"{group}.{key}=null" for group, node in groups.items() for key in node if node[key] is None]
        raise ConfigError(
            f"{chosen} do not take {', '.join(empty) or 'their values'} ({first_line(error)});"
            f" `vitexp --cfg job {chosen}` shows those that they come with"
        ) from error
    if cfg.analysis.measure is not None:
        build.make(cfg.analysis.measure, trust=cfg.trust)
