"""The iterable that Lightning takes batches from, composed of four parts.

| part | says | one size | many sizes | packed | boxes |
|---|---|---|---|---|---|
| source | where samples lie | MemorySource, FileSource | as one size | as one size | BoxSource |
| order | which of them come when | EpochOrder | MultiScaleOrder | PackOrder | EpochOrder |
| transform | what becomes of their pixels | ImageTransform | ImageTransform | PackTransform | BoxTransform |
| collation | how they become a batch | Stack | Stack | Pack | Pad |

A sampling chooses the last three. A source has its own reader (reader.py), which goes through the order.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import torch
from PIL import Image
from torch import Tensor

from vitexp.data.augment.settings import Augment
from vitexp.data.order import AnyStep, Order, Place
from vitexp.data.pixels import Pixels
from vitexp.machine.cores import usable_cores

Sample = TypeVar("Sample")
Collated = TypeVar("Collated")
Batch = TypeVar("Batch")


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Settings of the batches.

    size: the global batch, of one optimiser step; accumulate: micro-batches it is cut into; num_workers: processes
    that decode files, at most one a core (no result depends on it); timeout: seconds to wait for them; seed, epochs:
    the run's; sampling: how images become batches, None for batches of images of one size.
    """

    size: int
    accumulate: int
    num_workers: int
    timeout: float
    seed: int
    epochs: int
    sampling: "Sampling | None" = None


@dataclass(frozen=True, kw_only=True)
class Feed:
    """The settings of one loader.

    augment: None outside training; device: the one that trains; advice: how the sentence about a file that cannot be
    read ends.
    """

    pixels: Pixels
    batches: Batches
    augment: Augment | None
    training: bool
    num_classes: int
    place: Place
    device: torch.device
    advice: str = "; `vitexp data check` lists all such files, data.on_corrupt=skip leaves them out"

    @property
    def num_workers(self) -> int:
        """Processes that read files."""
        return min(self.batches.num_workers, usable_cores())

    def settings(self, epoch: int) -> Augment | None:
        """The augmentation in force in an epoch."""
        return self.augment.at(epoch, self.batches.epochs) if self.augment else None


class Transform(ABC, Generic[AnyStep, Sample]):
    """Pixels become samples; random draws belong to the sample and the epoch. `device`: where a set in memory lies."""

    feed: Feed
    device: torch.device

    @abstractmethod
    def read(self, position: int, *, epoch: int, step: AnyStep) -> Sample:
        """The sample of a file, in a worker. Raises DataError."""

    def from_memory(self, images: Tensor, *, epoch: int, step: AnyStep) -> Sequence[Sample] | Tensor:
        """The samples of images uint8 (B, C, H, W) of a set in memory, augmented already."""
        raise NotImplementedError


class Collation(ABC, Generic[AnyStep, Sample, Collated, Batch]):
    """The step from samples to a batch."""

    @abstractmethod
    def collate(self, samples: Sequence[Sample] | Tensor, step: AnyStep) -> Collated:
        """Make a batch of samples; called in a worker, if they are files."""

    @abstractmethod
    def finish(self, collated: Collated, step: AnyStep) -> Batch:
        """The last step, on the training device, in the process that trains; draws belong to the step."""


class Source(ABC):
    """Samples by index. keys: int64 (N,), each sample's number in the whole set, which its random draws go by."""

    labels: Tensor
    keys: Tensor

    def __len__(self) -> int:
        return len(self.keys)

    @abstractmethod
    def subset(self, positions: Tensor) -> Self:
        """The samples at `positions` (M,), under the keys they have here."""

    @abstractmethod
    def open(self, position: int, pixels: Pixels) -> Image.Image:
        """The image at a position by Pillow. Raises DataError."""

    @abstractmethod
    def decode(self, position: int, pixels: Pixels) -> Tensor:
        """The image at a position in the fastest way: uint8 (C, H, W). Raises DataError."""

    @abstractmethod
    def read_sizes(self, max_pixels: int) -> Tensor:
        """(height, width) of each image as stored, int64 (N, 2). Raises DataError."""

    def inventory(self) -> dict[str, Tensor]:
        """Columns of an inventory (inventory.py), a row a sample; here the labels alone."""
        return {"labels": self.labels}

    def intact(self, pixels: Pixels) -> Self:
        """Without files that cannot be read. Raises DataError if none can."""
        return self

    @abstractmethod
    def reader(self, loader: "Loader[AnyStep, Sample, Collated, Batch]") -> Iterable[tuple[AnyStep, Collated]]:
        """The steps of a loader's order with the samples of each, collated."""


class Loader(Generic[AnyStep, Sample, Collated, Batch]):
    """Batches. Lazy: Lightning asks for the iterator of the first epoch before it calls `sampler.set_epoch`."""

    batch_sampler = None  # Lightning looks here, then at `sampler`, to ask whether validation is shuffled

    def __init__(
        self,
        source: Source,
        order: Order[AnyStep],
        transform: Transform[AnyStep, Sample],
        collation: Collation[AnyStep, Sample, Collated, Batch],
    ) -> None:
        self.sampler, self.transform, self.collation = order, transform, collation
        self.reader = source.reader(self)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        for step, collated in self.reader:
            yield self.collation.finish(collated, step)


AnyLoader = Loader[Any, Any, Any, Any]


class Sampling(ABC):
    """A way in which images become batches."""

    @abstractmethod
    def order(self, source: Source, feed: Feed) -> Order[Any]:
        """The order of the samples."""

    @abstractmethod
    def loader(self, source: Source, feed: Feed) -> AnyLoader:
        """The batches."""

    def about(self, source: Source, feed: Feed) -> str:
        """A line for the header on what is special about the training batches; empty where nothing is."""
        return ""

    def whole(self) -> "Sampling":
        """The same loader, with the whole of each image."""
        return self
