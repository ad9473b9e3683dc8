"""The two iterables that Lightning takes batches from: of a set in memory, and of image files by worker processes.

Both yield (images float32 (B, C, S, S) normalised on the training device, labels int64 (B,), or float (B, K) under
mixup and CutMix, or bool (B, K) where several labels are right). Both are lazy: Lightning asks for the iterator of the
first epoch before it calls `loader.sampler.set_epoch`, so nothing may be fixed before the first batch is taken.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vitexp import seeding
from vitexp.data.augment.on_device import BatchAugment
from vitexp.data.augment.settings import Augment, mix
from vitexp.data.augment.transform import evaluation_crop, training_transform, upsample
from vitexp.data.order import EpochOrder
from vitexp.data.pixels import Pixels
from vitexp.data.source import FileSource, MemorySource
from vitexp.errors import DataError, ResourceError

Batch = tuple[Tensor, Tensor]
Key = tuple[int, int, int]  # batch of the epoch, epoch, position

# Images that are augmented together, whole batches of them: large enough to hide the cost of many small operations,
# small enough to stay in the processor's cache at 32 pixels. No result depends on it.
CHUNK = 1024


@dataclass(frozen=True, kw_only=True)
class Feed:
    """How a loader turns pixels into batches. `augment` is None outside training; `epochs` is the length of the run."""

    pixels: Pixels
    augment: Augment | None
    epochs: int
    seed: int
    num_classes: int
    device: torch.device

    def settings(self, epoch: int) -> Augment | None:
        """What is in force in an epoch."""
        return self.augment.at(epoch, self.epochs) if self.augment else None

    def at(self, order: EpochOrder, epoch: int, batch: int) -> Pixels:
        """The pixels of a batch, which may have a size of its own."""
        size = order.image_size(epoch, batch)
        return self.pixels if size is None else replace(self.pixels, image_size=size)

    def finish(self, images: Tensor, labels: Tensor, *, order: EpochOrder, batch: int) -> Batch:
        """Normalise a batch on its device and mix it; its random draws belong to its place in the run."""
        images = self.pixels.normalise(images)
        labels = labels.to(self.device, non_blocking=True)
        settings = self.settings(order.epoch)
        if settings is None or (settings.mixup == 0 and settings.cutmix == 0):
            return images, labels
        seeding.seed_step(self.seed, order.step(batch), rank=order.rank, stream=seeding.BATCH)
        return mix(images, labels, mixup=settings.mixup, cutmix=settings.cutmix, num_classes=self.num_classes)


ALL_FILES = "; `vitexp data check` lists all such files, data.on_corrupt=skip leaves them out"


class MemoryLoader:
    """Batches of a set in memory, augmented many at a time on the training device; no workers."""

    batch_sampler = None  # Lightning looks here, then at `sampler`, to ask whether validation is shuffled

    def __init__(self, source: MemorySource, order: EpochOrder, feed: Feed) -> None:
        self.sampler, self.feed, self.labels = order, feed, source.labels
        self.images = source.images.to(feed.device) if _fits(source.images, feed.device) else source.images
        self.batch_augment = None
        if feed.augment is not None:
            self.batch_augment = BatchAugment(
                self.images, source.keys, augment=feed.augment, pixels=feed.pixels, seed=feed.seed
            )

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        order = self.sampler
        size = max(1, CHUNK * order.accumulate * order.world_size // order.batch_size)
        batches = iter(order)
        while chunk := list(islice(batches, size)):
            parts = [positions for _, positions in chunk]
            images = self._pixels(torch.cat(parts)).split([len(part) for part in parts])
            for (batch, positions), native in zip(chunk, images, strict=True):
                yield self._batch(native, positions, batch)

    def _pixels(self, positions: Tensor) -> Tensor:
        settings = self.feed.settings(self.sampler.epoch)
        if self.batch_augment is None or settings is None:
            return self.images[positions.to(self.images.device)]
        return self.batch_augment(positions, self.sampler.epoch, settings)

    def _batch(self, native: Tensor, positions: Tensor, batch: int) -> Batch:
        images = native.to(self.feed.device, non_blocking=True)
        pixels = self.feed.at(self.sampler, self.sampler.epoch, batch)
        if images.shape[-2:] != (pixels.image_size, pixels.image_size):
            images = upsample(images.float(), pixels)
        return self.feed.finish(images, self.labels[positions], order=self.sampler, batch=batch)


class FolderLoader:
    """Batches of image files: decoded and augmented by workers, normalised and mixed here, on the training device.

    The same with any number of workers, none included. A file that cannot be read is a DataError that names it.
    """

    batch_sampler = None  # Lightning looks here, then at `sampler`, to ask whether validation is shuffled

    def __init__(
        self,
        source: FileSource,
        order: EpochOrder,
        feed: Feed,
        *,
        num_workers: int,
        timeout: float,
    ) -> None:
        self.sampler, self.feed, self.labels = order, feed, source.labels
        self.num_workers, self.timeout = num_workers, timeout
        self.loader = DataLoader(
            _Files(source, feed, order),
            batch_sampler=_Keys(order),
            num_workers=num_workers,
            collate_fn=_collate,
            pin_memory=feed.device.type == "cuda",
            persistent_workers=num_workers > 0 and feed.augment is not None,
            timeout=timeout if num_workers > 0 else 0,
            generator=torch.Generator(),  # else each iterator draws from the global one
        )

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self.loader)
        while (item := self._next(batches)) is not None:
            if isinstance(item, _Failure):
                raise DataError(f"{item.message}{ALL_FILES}")
            batch, positions, images = item
            images = images.to(self.feed.device, non_blocking=True)
            yield self.feed.finish(images, self.labels[positions], order=self.sampler, batch=batch)

    def _next(self, batches: "Iterator[_Item]") -> "_Item | None":
        try:
            return next(batches, None)
        except RuntimeError as error:
            text = str(error)
            if "timed out" in text:
                raise DataError(
                    f"no batch within data.timeout={self.timeout:g} seconds from {self.num_workers} workers: a file "
                    f"system that hangs or a huge image; use a larger data.timeout, or data.num_workers=0 to see where"
                ) from error
            if "DataLoader worker" in text and ("killed by signal" in text or "exited unexpectedly" in text):
                raise ResourceError(
                    f"a data worker was killed, most likely for memory, with data.num_workers={self.num_workers} "
                    f"data.batch_size={self.sampler.batch_size}; lower either"
                ) from error
            raise


@dataclass(frozen=True)
class _Failure:
    """What a worker hands back for a file it cannot read; an exception would arrive wrapped in its traceback."""

    message: str


_Item = tuple[int, Tensor, Tensor] | _Failure


class _Keys:
    """The order as DataLoader wants it: for each batch a list of what one sample depends on."""

    def __init__(self, order: EpochOrder) -> None:
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch = self.order.epoch
        for batch, positions in self.order:
            yield [(batch, epoch, position) for position in positions.tolist()]


class _Files(Dataset[tuple[Key, Tensor | _Failure]]):
    """Reads one file; lives in the workers."""

    def __init__(self, source: FileSource, feed: Feed, order: EpochOrder) -> None:
        self.source, self.feed, self.order = source, feed, order
        self.transforms: dict[tuple[Augment, int], Callable[[Tensor], Tensor]] = {}

    def __getitem__(self, key: Key) -> tuple[Key, Tensor | _Failure]:
        batch, epoch, position = key
        try:
            pixels = self.feed.at(self.order, epoch, batch)
            return key, self._read(epoch, position, pixels)
        except DataError as error:
            return key, _Failure(f"file {position}: {error}")

    def _read(self, epoch: int, position: int, pixels: Pixels) -> Tensor:
        settings = self.feed.settings(epoch)
        if settings is None:
            image = self.source.open(position, channels=pixels.channels, max_pixels=pixels.max_pixels)
            return evaluation_crop(image, pixels)
        if (settings, pixels.image_size) not in self.transforms:
            self.transforms[settings, pixels.image_size] = training_transform(settings, pixels)
        seeding.seed_sample(self.feed.seed, epoch, int(self.source.keys[position]))
        decoded = self.source.decode(position, channels=pixels.channels, max_pixels=pixels.max_pixels)
        return self.transforms[settings, pixels.image_size](decoded)


def _collate(samples: list[tuple[Key, Tensor | _Failure]]) -> _Item:
    images: list[Tensor] = []
    for _, image in samples:
        if isinstance(image, _Failure):
            return image
        images.append(image)
    positions = torch.tensor([position for (_, _, position), _ in samples])
    return samples[0][0][0], positions, torch.stack(images)


def _fits(images: Tensor, device: torch.device) -> bool:
    """Whether a set may live on the device: on a GPU if it takes at most a quarter of what is free there."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return images.nbytes <= free // 4
