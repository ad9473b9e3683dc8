"""The images that share a sequence, and the sequences that share a step, from sizes and (seed, epoch) alone.

A step has a budget of tokens, not of images. How many sequences an epoch has differs from epoch to epoch, its number of
steps does not, as the runner needs it: the sequences are dealt evenly to the steps, so a step may have one more or one
less than the budget says; under a schedule of token dropping, which makes later epochs longer or shorter, more of them.
Every image comes exactly once an epoch. What is longer than a sequence is shown smaller, and counted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vitexp import seeding
from vitexp.data.order import Order, Place
from vitexp.data.pack.drop import Drop, kept_counts
from vitexp.data.pack.first_fit import pack, spread
from vitexp.data.pack.resolution import Resolution, boxes, grids_of, shrunk
from vitexp.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Settings of `data.sampler=packed`.

    patch_size: pixels; length: tokens of a sequence; budget: of a step, over all devices; max_images: of a sequence;
    open_bins: sequences filled at a time, 1 is greedy next-fit; aspect: standard deviation of the logarithm of the
    factor by which crops change the aspect, 0 shows whole images; native: whether evaluation shows images at their own
    size instead of `image_size`; resolution, drop: of training.
    """

    patch_size: int
    length: int
    budget: int
    max_images: int
    open_bins: int
    aspect: float
    native: bool
    resolution: Resolution
    drop: Drop

    def __post_init__(self) -> None:
        numbers = ("patch_size", "length", "budget", "max_images", "open_bins")
        for key in numbers:
            if getattr(self, key) < 1:
                raise ConfigError(f"data.packing.{key}={getattr(self, key)} is out of range; use 1 or more")
        if self.aspect < 0:
            raise ConfigError(f"data.packing.aspect={self.aspect} is negative; use 0.0 for whole images, or 0.3")


@dataclass(frozen=True)
class Views:
    """The sizes and dropped tokens of an epoch's images, N rows each.

    keys: of the samples' draws; boxes: the crop (top, left, height, width); grids: in patches; kept: tokens that stay;
    shrunk: how many were longer than a sequence.
    """

    keys: Tensor
    boxes: Tensor
    grids: Tensor
    kept: Tensor
    shrunk: int


class Sequences(NamedTuple):
    """The share of one process in a micro-batch: positions of images by sequence; weight: of its mean loss."""

    number: int
    rows: list[list[int]]
    weight: float

    @property
    def positions(self) -> Tensor:
        """Positions of all images, in their order."""
        return torch.tensor([position for row in self.rows for position in row])


class PackOrder(Order[Sequences]):
    """Steps of sequences of image positions, epoch after epoch; the same on every rank but for the part it takes.

    Args:
        sizes: (height, width) of each image as stored, int64 (N, 2).
        keys: each sample's number in the whole set.
        packing: the settings.
        image_size: R of evaluation, and what the range of training refers to.
        training: whether to shuffle, draw sizes and drop tokens.
    """

    def __init__(
        self,
        sizes: Tensor,
        keys: Tensor,
        place: Place,
        packing: Packing,
        *,
        image_size: int,
        training: bool,
    ) -> None:
        super().__init__(place)
        self.sizes, self.keys, self.packing = sizes, keys, packing
        self.image_size, self.training = image_size, training
        self.length = packing.length
        parts = self.accumulate * self.world_size
        if len(sizes) < (parts if training else 1):
            raise DataError(
                f"{len(sizes)} images do not suffice for {parts} processes or micro-batches; use a larger set, or a"
                " larger data.val_fraction and data.test_fraction"
            )
        self._plans: dict[int, tuple[Views, list[list[int]]]] = {}
        shown, sequences = self.plan(0)
        at_once = max(packing.budget // self.length // parts, 1) * parts
        self.steps = max(len(sequences) // at_once, 1)
        self.padding_rate = 1 - int(shown.kept.sum()) / max(len(sequences) * self.length, 1)
        self.per_sequence = len(sizes) / max(len(sequences), 1)

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def __iter__(self) -> Iterator[Sequences]:
        _, sequences = self.plan(self.epoch)
        if not self.training:
            for batch in range(self.steps):
                begin, end = (len(sequences) * edge // self.steps for edge in (batch, batch + 1))
                if own := sequences[begin:end][self.rank :: self.world_size]:
                    yield Sequences(batch, own, 1.0)
            return
        parts = self.accumulate * self.world_size
        sequences = spread(sequences, at_least=self.steps * parts, multiple=parts)
        units = len(sequences) // parts
        for batch in range(self.first_batch, len(self)):
            step, micro = divmod(batch, self.accumulate)
            begin, end = (units * edge // self.steps for edge in (step, step + 1))
            whole = sequences[begin * parts : end * parts]
            share = (end - begin) * (micro * self.world_size + self.rank)
            own = whole[share : share + end - begin]
            if own:
                yield Sequences(batch, own, parts * sum(map(len, own)) / sum(map(len, whole)))

    def plan(self, epoch: int) -> tuple[Views, list[list[int]]]:
        """The images of an epoch as they are shown, and the sequences of their positions."""
        epoch = epoch if self.training else 0
        if epoch not in self._plans:
            positions = torch.arange(len(self.sizes))
            if self.training:
                positions = seeding.permutation(self.seed, epoch, len(self.sizes))
            shown = self._show(epoch, positions)
            counts = shown.kept[positions].tolist()
            settings = self.packing
            packed = pack(counts, length=self.length, max_images=settings.max_images, open_bins=settings.open_bins)
            places = positions.tolist()
            self._plans = {epoch: (shown, [[places[image] for image in row] for row in packed])}
        return self._plans[epoch]

    def _show(self, epoch: int, positions: Tensor) -> Views:
        settings, training = self.packing, self.training
        keys = seeding.sample_keys(self.seed if training else seeding.SPLIT, epoch, self.keys)
        cut = boxes(self.sizes, keys, aspect=settings.aspect, centred=not training)
        resolution = settings.resolution.draw(keys, self.image_size)
        if not training:
            resolution = None if settings.native else torch.full((len(keys),), float(self.image_size)).double()
        grids = grids_of(cut[:, 2:], resolution, settings.patch_size)
        cells = grids.prod(dim=1)
        if not training:
            self.length = max(settings.length, int(cells.max()))
            return Views(keys, cut, grids, cells, 0)
        seen = torch.empty(len(keys), dtype=torch.float64)
        seen[positions] = epoch + torch.arange(len(keys)).double() / max(len(keys), 1)
        fewest, most = (
            (share * self.image_size / settings.patch_size) ** 2
            for share in (settings.resolution.low, settings.resolution.high)
        )
        rates = settings.drop.rates(keys, cells=cells, ends=(fewest, most), seen=seen)
        kept = kept_counts(cells, rates)
        long = (kept > self.length).nonzero().flatten().tolist()
        for image in long:
            grid = shrunk((int(grids[image, 0]), int(grids[image, 1])), self.length)
            grids[image] = torch.tensor(grid)
            kept[image] = kept_counts(grids[image].prod(), rates[image])
        return Views(keys, cut, grids, kept, len(long))
