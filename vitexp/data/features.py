"""Batches of what a frozen model computed once from the images of a split, in the order that the images would have."""

from collections.abc import Iterator

from torch import Tensor

from vitexp.data.order import EpochOrder


class FeatureLoader:
    """Yields (features float (B, D), labels) by an order; features and labels lie on the training device."""

    batch_sampler = None  # as of any loader

    def __init__(self, features: Tensor, labels: Tensor, order: EpochOrder) -> None:
        self.features, self.labels, self.sampler = features, labels, order

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _, positions in self.sampler:
            places = positions.to(self.features.device)
            yield self.features.index_select(0, places), self.labels.index_select(0, places)
