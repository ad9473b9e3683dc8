"""The two ways through a source: of a set in memory many images at a time, of files one at a time in worker processes.

Nothing is fixed before the first batch is taken.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from vitexp.data.augment.on_device import BatchAugment
from vitexp.data.loader import Batch, Collated, Collation, Loader, Sample, Transform
from vitexp.data.order import AnyStep, Order
from vitexp.errors import DataError
from vitexp.machine.memory import free_on
from vitexp.machine.workers import Hands, lost_worker

# Images that are augmented together, whole batches of them: large enough to hide the cost of many small operations,
# small enough to stay in the processor's cache at 32 pixels. No result depends on it.
CHUNK = 1024


class MemoryReader(Generic[AnyStep, Sample, Collated, Batch]):
    """A reader of images (N, C, H, W) in memory with keys (N,), augmented many at a time; no workers."""

    def __init__(self, images: Tensor, keys: Tensor, loader: Loader[AnyStep, Sample, Collated, Batch]) -> None:
        self.order, self.transform, self.collation = loader.sampler, loader.transform, loader.collation
        feed, device = self.transform.feed, self.transform.device
        # A GPU holds the set if it takes at most a quarter of what is free there.
        fits = device.type != "cuda" or images.nbytes <= free_on(device) // 4
        self.images = images.to(device) if fits else images
        self.augment = None
        if feed.augment is not None:
            self.augment = BatchAugment(
                self.images, keys, augment=feed.augment, pixels=feed.pixels, seed=feed.batches.seed
            )

    def __iter__(self) -> Iterator[tuple[AnyStep, Collated]]:
        for chunk in self._chunks():
            positions, epoch = [step.positions for step in chunk], self.order.epoch
            images = self._pixels(torch.cat(positions), epoch).split([len(part) for part in positions])
            for step, native in zip(chunk, images, strict=True):
                samples = self.transform.from_memory(native, epoch=epoch, step=step)
                yield step, self.collation.collate(samples, step)

    def _chunks(self) -> Iterator[list[AnyStep]]:
        chunk: list[AnyStep] = []
        count = 0
        for step in self.order:
            chunk.append(step)
            count += len(step.positions)
            if count >= CHUNK:
                yield chunk
                chunk, count = [], 0
        if chunk:
            yield chunk

    def _pixels(self, positions: Tensor, epoch: int) -> Tensor:
        settings = self.transform.feed.settings(epoch)
        if self.augment is None or settings is None:
            return self.images[positions.to(self.images.device)]
        return self.augment(positions, epoch, settings)


class FileReader(Generic[AnyStep, Sample, Collated, Batch]):
    """A reader of image files, by workers; the same with any number of them, none included.

    A file that cannot be read is a DataError that names it.
    """

    def __init__(self, loader: Loader[AnyStep, Sample, Collated, Batch], path: Callable[[int], str]) -> None:
        self.feed = feed = loader.transform.feed
        self.hands = Hands(feed.num_workers, path)
        files: _Files[AnyStep, Sample, Collated, Batch] = _Files(loader.transform, loader.collation, self.hands)
        self.batches = DataLoader(
            files,
            batch_size=None,  # the order says what a batch is
            sampler=_Steps(loader.sampler),
            num_workers=feed.num_workers,
            collate_fn=tuple,
            pin_memory=feed.device.type == "cuda",
            persistent_workers=feed.num_workers > 0 and feed.training,
            timeout=feed.batches.timeout if feed.num_workers > 0 else 0,
            generator=torch.Generator(),  # else each iterator draws from the global one
        )

    def __iter__(self) -> Iterator[tuple[AnyStep, Collated]]:
        batches = iter(self.batches)
        with self.hands.watched():
            while (item := self._next(batches)) is not None:
                step, collated = item
                if isinstance(collated, _Failure):
                    raise DataError(f"{collated.message}{self.feed.advice}")
                yield step, collated

    def _next(
        self, batches: "Iterator[tuple[AnyStep, Collated | _Failure]]"
    ) -> "tuple[AnyStep, Collated | _Failure] | None":
        feed = self.feed
        try:
            return next(batches, None)
        except RuntimeError as error:
            if "timed out" in str(error):
                raise DataError(
                    f"no batch within data.timeout={feed.batches.timeout:g} seconds from {feed.num_workers} workers: a"
                    " file system that hangs or a huge image; use a larger data.timeout, or data.num_workers=0 to see"
                    " where"
                ) from error
            if (lost := lost_worker(error)) is not None:
                raise lost from error
            raise
        except (EOFError, OSError) as error:  # the worker died while it handed a batch over
            if (lost := self.hands.lost()) is not None:
                raise lost from error
            raise


@dataclass(frozen=True)
class _Failure:
    """A file that a worker cannot read, handed back; an exception would arrive wrapped in its traceback."""

    message: str


class _Steps(Generic[AnyStep]):
    """The order as DataLoader wants it: all that a batch depends on."""

    def __init__(self, order: Order[AnyStep]) -> None:
        self.order = order

    def __iter__(self) -> Iterator[tuple[int, AnyStep]]:
        epoch = self.order.epoch
        return ((epoch, step) for step in self.order)


class _Files(Dataset[tuple[AnyStep, Collated | _Failure]], Generic[AnyStep, Sample, Collated, Batch]):
    """Reads the files of a batch; lives in the workers."""

    def __init__(
        self,
        transform: Transform[AnyStep, Sample],
        collation: Collation[AnyStep, Sample, Collated, Batch],
        hands: Hands,
    ) -> None:
        self.transform, self.collation, self.hands = transform, collation, hands

    def __getitem__(self, key: tuple[int, AnyStep]) -> tuple[AnyStep, Collated | _Failure]:
        epoch, step = key
        samples, worker = [], get_worker_info()
        for position in step.positions.tolist():
            if worker is not None:
                self.hands.take(worker.id, position)
            try:
                samples.append(self.transform.read(position, epoch=epoch, step=step))
            except DataError as error:
                return step, _Failure(f"file {position}: {error}")
        return step, self.collation.collate(samples, step)
