"""Each batch at another size, as many images as its area allows: MobileViT's sampler (arXiv 2110.02178, Listing 1).

The authors' code draws sizes until an epoch is used up, so the number of batches differs from epoch to epoch, and fills
the last batch by images seen before. Here the sizes of an epoch are drawn once, from the run's seed, and come in
another order in each: every epoch has as many steps, no image comes twice in it, and fewer than a batch are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate as running_sum

import torch

from vitexp import seeding
from vitexp.data.order import EpochOrder, Place, Share
from vitexp.errors import ConfigError

_COMPOSITION, _TURNS = 11, 12  # streams: which sizes an epoch has, and in which order


@dataclass(frozen=True, kw_only=True)
class MultiScale:
    """Settings of `data.sampler=multi_scale`.

    low, high, count: evenly spaced sides, as shares of the image size, which is one of them besides; divisor: pixels
    that every side is a multiple of; base: the side that has the configured batch size, the `nominal` one (the authors'
    code) or the `largest` (their text); multiple: of which batches are, for devices that like it.
    """

    low: float
    high: float
    count: int
    divisor: int
    base: str
    multiple: int

    def __post_init__(self) -> None:
        if self.base not in ("nominal", "largest"):
            raise ConfigError(f"data.multi_scale.base={self.base} is unknown; use nominal or largest")
        if not 0 < self.low <= self.high or min(self.count, self.divisor, self.multiple) < 1:
            raise ConfigError(
                f"data.multi_scale.low={self.low} high={self.high} count={self.count} divisor={self.divisor} multiple="
                f"{self.multiple}: the range goes up from above 0, the others are at least 1; use low=0.625 high=1.25"
            )

    def pairs(self, image_size: int, batch_size: int, *, parts: int = 1) -> list[tuple[int, int]]:
        """(side, images) of each resolution, smallest first; batches are multiples of `parts` and of `multiple`."""
        low, high = self.low * image_size, self.high * image_size
        steps = [low + (high - low) * index / max(self.count - 1, 1) for index in range(self.count)]
        sides = sorted({divisible(side, self.divisor) for side in (*steps, image_size)})
        base = image_size if self.base == "nominal" else sides[-1]
        unit = parts * self.multiple
        batches = [max(1, int(round(batch_size * base * base / (side * side), 2))) for side in sides]
        return [(side, max(images // unit, 1) * unit) for side, images in zip(sides, batches, strict=True)]


def divisible(value: float, divisor: int) -> int:
    """The nearest multiple of `divisor`, the next one where that is less than nine tenths of the value."""
    nearest = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * value else nearest


class MultiScaleOrder(EpochOrder):
    """Batches of positions, each with its own size; otherwise as `EpochOrder`, shuffled and without incomplete ones."""

    def __init__(self, count: int, batch_size: int, place: Place, scales: MultiScale, *, image_size: int) -> None:
        pairs = scales.pairs(image_size, batch_size, parts=place.accumulate * place.world_size)
        self.steps = composition(count, pairs, place.seed)
        if not self.steps:
            raise ConfigError(
                f"{count} images are fewer than the smallest batch of data.sampler=multi_scale has "
                f"({min(images for _, images in pairs)}); use a smaller data.batch_size"
            )
        super().__init__(count, batch_size, place, shuffle=True, drop_last=True)

    def __len__(self) -> int:
        return len(self.steps) * self.accumulate

    def image_size(self, epoch: int, batch: int) -> int:
        """Side of the images of a micro-batch."""
        return self._turn(epoch)[batch // self.accumulate][0]

    def __iter__(self) -> Iterator[Share]:
        positions = seeding.permutation(self.seed, self.epoch, self.count)
        steps = self._turn(self.epoch)
        starts = [0, *running_sum(images for _, images in steps)]
        for batch in range(self.first_batch, len(self)):
            step, micro = divmod(batch, self.accumulate)
            whole = positions[starts[step] : starts[step + 1]]
            yield Share(batch, whole.tensor_split(self.accumulate)[micro].tensor_split(self.world_size)[self.rank])

    def _turn(self, epoch: int) -> list[tuple[int, int]]:
        """The steps of an epoch in their order."""
        order = seeding.permutation(seeding.mix(self.seed, _TURNS), epoch, len(self.steps))
        return [self.steps[index] for index in order.tolist()]


def composition(count: int, pairs: list[tuple[int, int]], seed: int) -> list[tuple[int, int]]:
    """(side, images) of the steps of any epoch: sizes drawn evenly until no batch fits into what is left of `count`."""
    keys = seeding.sample_keys(seed, _COMPOSITION, torch.arange(count // min(images for _, images in pairs) + 1))
    steps: list[tuple[int, int]] = []
    for share in seeding.uniform(keys, 0).tolist():
        fitting = [pair for pair in pairs if pair[1] <= count]
        if not fitting:
            break
        side, images = fitting[int(share * len(fitting))]
        steps.append((side, images))
        count -= images
    return steps
