"""Batches of what a frozen model computed once from the images of a split, in the order that the images would have."""

from collections.abc import Iterator

from torch import Tensor

from vitexp.data.order import EpochOrder, Share


class FeatureReader:
    """Features float (N, D) and their labels, which lie on the training device."""

    def __init__(self, features: Tensor, labels: Tensor, order: EpochOrder) -> None:
        self.features, self.labels, self.order = features, labels, order

    def __iter__(self) -> Iterator[tuple[Share, Tensor]]:
        for step in self.order:
            yield step, step.positions.to(self.features.device)

    def finish(self, places: Tensor, step: Share) -> tuple[Tensor, Tensor]:
        """A batch (B, D), (B, ...)."""
        return self.features.index_select(0, places), self.labels.index_select(0, places)
