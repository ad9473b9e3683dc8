"""Made-up images for tests: each class has a pattern, each image is its pattern under noise, so there is a signal."""

import torch

from vitexp import seeding
from vitexp.data.augment.settings import Augment
from vitexp.data.base import ImageData
from vitexp.data.loader import Batches, Source
from vitexp.data.pixels import Pixels
from vitexp.data.source import MemorySource

_NOISE = 48.0  # standard deviation of the noise, in grey levels
_STREAMS = {"train": 1, "val": 2, "test": 3}


class Fake(ImageData):
    """`sizes` images in train, val and test, native at `image_size`; `pattern` seeds them, whatever the run's seed."""

    def __init__(
        self,
        *,
        num_classes: int,
        sizes: list[int],
        pattern: int,
        pixels: Pixels,
        batches: Batches,
        augment: Augment,
    ) -> None:
        super().__init__(num_classes=num_classes, pixels=pixels, batches=batches, augment=augment)
        self.sizes, self.pattern = dict(zip(_STREAMS, sizes, strict=True)), pattern

    def read_class_names(self) -> list[str]:
        """The names of the classes: class0, class1, ..."""
        return [f"class{label}" for label in range(self.num_classes)]

    def read(self, part: str) -> dict[str, Source]:
        """Made on the spot."""
        splits = ("test",) if part == "test" else ("train", "val")
        return {split: self._make(split) for split in splits}

    def _make(self, split: str) -> MemorySource:
        shape = (self.channels, self.image_size, self.image_size)
        generator = torch.Generator().manual_seed(self.pattern)
        patterns = 255 * torch.rand(self.num_classes, self.channels, 4, 4, generator=generator)
        patterns = torch.nn.functional.interpolate(patterns, list(shape[1:]))
        count = self.sizes[split]
        labels = torch.arange(count) % self.num_classes
        generator.manual_seed(seeding.mix(self.pattern, _STREAMS[split]))
        noise = _NOISE * torch.randn(count, *shape, generator=generator)
        images = (patterns[labels] + noise).round_().clamp_(0, 255).to(torch.uint8)
        return MemorySource(images, labels, torch.arange(count))
