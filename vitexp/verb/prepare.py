"""The objects of a training, made once and checked while nothing is written: devices, batches, optimizer."""

from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from vitexp import build
from vitexp.checkpoint.safe_io import SafeCheckpointIO
from vitexp.data.base import ImageData
from vitexp.errors import ConfigError, VitexpError, first_line
from vitexp.logger.choose import require_choice
from vitexp.run.training import Settings, Training
from vitexp.task.base import Task
from vitexp.task.classify import Classify


def prepare(cfg: DictConfig, data: ImageData, model: nn.Module) -> Training:
    """Task, trainer and settings around data and model; what would stop a training at its first step is found here.

    Raises:
        ConfigError: a logger that is not installed, devices that are not here, a batch that they cannot share, an
            optimizer or schedule that does not take its values, a model from outside that gives no logits.
        DataError: no image to train on.
    """
    logger = logger_settings(cfg)
    task: Task = build.build_task(cfg, model)
    if isinstance(task, Classify) and not type(model).__module__.startswith("vitexp."):
        task.try_model(data.channels, data.image_size)
    trainer = build.build_trainer(cfg, folder=cfg.outputs, plugins=[SafeCheckpointIO()])
    data.trainer = trainer
    _require_optimization(cfg, task, data.steps_per_epoch)  # whose number depends on the number of processes
    build.switches(cfg, model)
    return Training(data=data, task=task, trainer=trainer, logger=logger, settings=settings(cfg))


def logger_settings(cfg: DictConfig) -> dict[str, Any]:
    """The settings of `logger=`; of a file that names a class of the user's, the factory of a tracker for a session."""
    if "_target_" in cfg.logger:
        return {"own": build.make(cfg.logger, trust=cfg.trust)}
    require_choice(cfg.logger.choice)
    settings: Any = OmegaConf.to_container(cfg.logger, resolve=True)
    return dict(settings)


def settings(cfg: DictConfig) -> Settings:
    """The plain values of a training."""
    return Settings(
        seed=cfg.seed,
        select=cfg.select,
        quiet=cfg.quiet,
        log_every=cfg.trainer.log_every,
        checkpoint_seconds=cfg.trainer.checkpoint_seconds,
        ema=cfg.trainer.ema,
        sampler=cfg.data.get("sampler", "fixed"),
        embeds=bool(cfg.regime.get("cache")),
        lr=cfg.optimizer.lr,
        warmup=cfg.schedule.warmup,
        chosen={group: str(option) for group, option in cfg.chosen.items()},
        config=OmegaConf.to_container(cfg, resolve=True),  # type: ignore[arg-type]
    )


def _require_optimization(cfg: DictConfig, task: Task, steps: int) -> None:
    """Make optimizer and schedule as Lightning does when a training begins, and let go of them."""
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
