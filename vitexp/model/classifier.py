"""The base of every classification model: maps for detectors, a head to replace, folding.

Of vitexp/contract.py it follows SupportsNewHead, SupportsLoading, SupportsFeatures, SupportsFusing and HasGrid.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from vitexp.contract import SupportsFusing
from vitexp.layer.head import zero_linear


class Classifier(nn.Module, ABC):
    """Images (B, C, H, W) to logits (B, K).

    Attributes:
        family: names the module `vitexp.checkpoint.names.<family>` that knows its tensors' foreign names.
        head_names: tensors whose shape depends on the number of classes.
        position_tables: name -> number of prefix rows of each learned table (1, P + h*w, D) over `grid`.
        grid: (h, w) of the tokens or of the final map.
        strides: pixels a cell of each map that `features` returns, finest first.
    """

    family: ClassVar[str]
    head_name: ClassVar[str] = "head"
    head_names: ClassVar[tuple[str, ...]] = ("head.weight", "head.bias")
    position_tables: dict[str, int]
    grid: tuple[int, int]
    strides: tuple[int, ...]
    num_classes: int
    head: nn.Module

    @abstractmethod
    def features(self, images: Tensor) -> list[Tensor]:
        """Maps (B, C_i, H / strides[i], W / strides[i]), finest first, for detectors and segmenters."""

    def reset_head(self, num_classes: int) -> None:
        """Put a new head for `num_classes` in place, all zero."""
        assert isinstance(self.head, nn.Linear)
        self.head = zero_linear(self.head, num_classes)
        self.num_classes = num_classes

    def adapt(self, name: str, tensor: Tensor) -> tuple[Tensor, str] | None:
        """A tensor of a checkpoint of this family, saved at another image or window size, made to fit, and how.

        Asked for each tensor whose shape differs; None where only the other model= can hold it.
        """
        return None

    def fuse(self) -> None:
        """Fold batch norms into their convolutions, in place, for evaluation; a model without any stays as it is."""
        for module in list(self.modules()):
            if module is not self and isinstance(module, SupportsFusing):
                module.fuse()


class Pyramid(Classifier):
    """A model of `stages` whose maps halve from one to the next, then a `head` on the pooled last map.

    A final class sets `stages` (maps to maps) and offers `embed`, what stands before the first stage, and `classify`.
    """

    stages: nn.ModuleList
    position_tables: dict[str, int]

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to the first stage's input."""

    @abstractmethod
    def classify(self, x: Tensor) -> Tensor:
        """The last stage's output to logits (B, K)."""

    def forward(self, images: Tensor) -> Tensor:
        x = self.embed(images)
        for stage in self.stages:
            x = stage(x)
        return self.classify(x)
