"""The order in which one process sees the samples of each epoch, computed from (seed, epoch, start batch) alone."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from vitexp import seeding
from vitexp.errors import ConfigError, DataError


class Step(Protocol):
    """The share of one process in a micro-batch: its number in the epoch, and positions int64 (b,) in the split."""

    @property
    def number(self) -> int: ...

    @property
    def positions(self) -> Tensor: ...


class Share(NamedTuple):
    """Some samples of a micro-batch, one process's: a `Step` of images that need no more to be said of them."""

    number: int
    positions: Tensor


AnyStep = TypeVar("AnyStep", bound=Step)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A process in its run: the run's seed, micro-batches of a step, processes, and the (epoch, batch) of a resume."""

    seed: int
    accumulate: int = 1
    rank: int = 0
    world_size: int = 1
    start: tuple[int, int] = (0, 0)


class Order(ABC, Generic[AnyStep]):
    """Micro-batches, epoch after epoch.

    A step of the optimiser is cut into `accumulate` micro-batches, and each of them into `world_size` parts, one a
    process: so the samples of a step do not depend on either number. `__len__` is the number of micro-batches of the
    full epoch, also when a resume skips some of the first one.
    """

    def __init__(self, place: Place) -> None:
        self.seed, self.accumulate = place.seed, place.accumulate
        self.rank, self.world_size = place.rank, place.world_size
        self.start_epoch, self.start_batch = place.start
        self.epoch = self.start_epoch

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __iter__(self) -> Iterator[AnyStep]:
        """Yield what this rank takes of each micro-batch."""

    def set_epoch(self, epoch: int) -> None:
        """Move to an epoch; Lightning calls it before the first batch of each."""
        self.epoch = epoch

    @property
    def first_batch(self) -> int:
        """The first batch of this epoch: after a resume within it, the first one not yet trained on."""
        return self.start_batch if self.epoch == self.start_epoch else 0

    def step(self, batch: int) -> int:
        """Number of a micro-batch over the whole run, the same on every rank: the key of its random draws."""
        return self.epoch * len(self) + batch


class EpochOrder(Order[Share]):
    """Batches of samples. A global batch of `batch_size` is one optimiser step.

    With `drop_last` an epoch is a whole number of global batches; without, every sample comes once, and the last
    parts may be smaller, or empty and left out.
    """

    def __init__(self, count: int, batch_size: int, place: Place, *, shuffle: bool, drop_last: bool) -> None:
        require_divisible(batch_size, place.accumulate, place.world_size)
        super().__init__(place)
        self.count, self.batch_size, self.shuffle, self.drop_last = count, batch_size, shuffle, drop_last
        if count == 0:
            raise DataError(
                "0 batches an epoch: 0 samples in this split; use a larger set, or another data.val_fraction"
            )
        if len(self) == 0:
            raise ConfigError(
                f"0 batches an epoch: {count} samples, batches of {batch_size}, incomplete ones dropped; "
                f"use data.batch_size={count} or less, or a larger set"
            )

    def __len__(self) -> int:
        if self.drop_last:
            return self.count // self.batch_size * self.accumulate
        return -(-self.count // (self.batch_size // self.accumulate))

    def image_size(self, epoch: int, batch: int) -> int | None:
        """Side of the images of a micro-batch where it has one of its own; here it has none."""
        return None

    def __iter__(self) -> Iterator[Share]:
        positions = torch.arange(self.count)
        if self.shuffle:
            positions = seeding.permutation(self.seed, self.epoch, self.count)
        size = self.batch_size // self.accumulate
        for batch in range(self.first_batch, len(self)):
            part = positions[batch * size : (batch + 1) * size].tensor_split(self.world_size)[self.rank]
            if len(part):
                yield Share(batch, part)


def require_divisible(batch_size: int, accumulate: int, world_size: int) -> None:
    """Raise ConfigError unless a global batch can be cut into equal parts."""
    parts = accumulate * world_size
    if batch_size % parts:
        raise ConfigError(
            f"data.batch_size={batch_size} is the global batch; it must be a multiple of trainer.accumulate="
            f"{accumulate} times {world_size} processes; use data.batch_size={-(-batch_size // parts) * parts}"
        )
