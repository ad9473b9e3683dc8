"""The ways in which images become batches, `data.sampler`; detection has its own (box/data.py)."""

from dataclasses import dataclass, replace

from vitexp.data.collation import ImageTransform, Stack
from vitexp.data.loader import AnyLoader, Feed, Loader, Sampling, Source
from vitexp.data.multiscale import MultiScale, MultiScaleOrder
from vitexp.data.order import EpochOrder
from vitexp.data.pack.collation import Pack, PackTransform
from vitexp.data.pack.order import Packing, PackOrder
from vitexp.data.source import image_sizes
from vitexp.errors import ConfigError

SAMPLERS = ("fixed", "multi_scale", "packed")


class Fixed(Sampling):
    """Batches of images of one size."""

    def order(self, source: Source, feed: Feed) -> EpochOrder:
        training = feed.training
        return EpochOrder(len(source), feed.batches.size, feed.place, shuffle=training, drop_last=training)

    def loader(self, source: Source, feed: Feed) -> AnyLoader:
        order = self.order(source, feed)
        return Loader(source, order, ImageTransform(feed, order, source), Stack(feed, order, source.labels))


@dataclass(frozen=True)
class MultiScaled(Fixed):
    """Training batches of several sizes; evaluation at one."""

    settings: MultiScale

    def order(self, source: Source, feed: Feed) -> EpochOrder:
        if not feed.training:
            return super().order(source, feed)
        size = feed.pixels.image_size
        return MultiScaleOrder(len(source), feed.batches.size, feed.place, self.settings, image_size=size)

    def about(self, source: Source, feed: Feed) -> str:
        pairs = self.settings.pairs(feed.pixels.image_size, feed.batches.size, parts=feed.batches.accumulate)
        return ", ".join(f"{images} at {side}" for side, images in pairs) + " pixels"


@dataclass(frozen=True)
class Packed(Sampling):
    """Each image at its own size, in sequences of tokens."""

    settings: Packing

    def order(self, source: Source, feed: Feed) -> PackOrder:
        return PackOrder(
            image_sizes(source, max_pixels=feed.pixels.max_pixels),
            source.keys,
            feed.place if feed.training else replace(feed.place, accumulate=1),
            self.settings,
            image_size=feed.pixels.image_size,
            training=feed.training,
        )

    def loader(self, source: Source, feed: Feed) -> AnyLoader:
        order = self.order(source, feed)
        return Loader(source, order, PackTransform(feed, order, source), Pack(feed, order, source.labels))

    def about(self, source: Source, feed: Feed) -> str:
        order = self.order(source, feed)
        return (
            f"sequences of {order.length} tokens, {order.per_sequence:.1f} images and {order.padding_rate:.1%} padding "
            f"each, {self.settings.budget // order.length} a step"
        )

    def whole(self) -> "Packed":
        return Packed(replace(self.settings, aspect=0.0))


def sampling(*, sampler: str, packing: Packing, multi_scale: MultiScale) -> Sampling:
    """The one in force.

    Raises:
        ConfigError: an unknown sampler.
    """
    ways = {"fixed": Fixed(), "multi_scale": MultiScaled(multi_scale), "packed": Packed(packing)}
    if sampler not in ways:
        raise ConfigError(f"data.sampler={sampler} is unknown; it is one of {', '.join(SAMPLERS)}; use fixed")
    return ways[sampler]
