"""A training as plain values and objects: what `fit` takes in place of a configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytorch_lightning import Trainer

from vitexp.data.base import ImageData
from vitexp.task.base import Task


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The plain values of a training.

    Attributes:
        select: whose weights are tested and saved: of the `last` epoch or of the `best` one.
        log_every, checkpoint_seconds: steps between two rows of metrics.csv, seconds between two checkpoints.
        ema: decay of the average of the weights; None to keep none.
        sampler: how images become batches.
        embeds: whether training runs on the features of the frozen part.
        lr, warmup: the peak of the schedule, and the part of the training that leads there.
        chosen: group -> its option.
        config: all keys, for loggers and for what files say of themselves.
    """

    seed: int
    select: str
    quiet: bool
    log_every: int
    checkpoint_seconds: float
    ema: float | None
    sampler: str
    embeds: bool
    lr: float
    warmup: str
    chosen: Mapping[str, str]
    config: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Training:
    """The objects of a training; its trainer has neither callbacks nor loggers yet, which need the run's folder.

    Attributes:
        logger: what `logger=` says, as `build_logger` takes it.
    """

    data: ImageData
    task: Task
    trainer: Trainer
    logger: Mapping[str, Any]
    settings: Settings
