"""An analysis makes numbers from a model and a few images: a table, a picture, a few headline values."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The model and the images that an analysis looks at.

    Attributes:
        model: in any mode, on the device of the images.
        images: (n, C, S, S), normalised; chosen by the analysis's seed.
        labels: (n,) class ids.
        mean, std: of each channel, as the images were normalised with.
        count_macs: multiply-accumulates of a model for one such image.
        trial: `trial(changes, unset={}, epochs=0)` is the accuracy of these weights on all test images under changed
            keys of the configuration (those of `unset` where it has null), after so many epochs of fine-tuning there.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    mean: Sequence[float]
    std: Sequence[float]
    count_macs: Callable[[nn.Module], int]
    trial: Callable[..., float]


class Analysis(ABC):
    """`measure` a subject, then say it as `rows` of a table, as `summary` values and as a picture (`draw`).

    Attributes:
        name: the word of `analysis=`.
        compares: whether the untrained model and other runs stand beside the trained one.
        samples: whether it looks at the chosen images only.
    """

    name: ClassVar[str]
    compares: ClassVar[bool] = True
    samples: ClassVar[bool] = True

    @abstractmethod
    def measure(self, subject: Subject) -> Any:
        """Look at the model. Raises ConfigError where this analysis means nothing for it."""

    @abstractmethod
    def summary(self, measured: Any) -> dict[str, float]:
        """The few values that a curve over epochs or a terminal shows."""

    @abstractmethod
    def rows(self, measured: Any) -> list[Row]:
        """All values, one row each, with equal keys."""

    @abstractmethod
    def draw(self, measured: Mapping[str, Any], out: Path, title: str) -> None:
        """Write the picture to `out` (PNG; an SVG beside it) for one or more measurements by label."""
