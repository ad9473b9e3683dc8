"""The contracts of an experiment's parts: the six kinds of parts, then what a part may offer besides.

A part follows its protocol by having the methods; it inherits nothing from here. The small protocols that begin with
`Supports` or `Has` are found by `isinstance`, which looks for the names and not for their values: a part that cannot do
something leaves the name out. Such a name is a method or a plain attribute, never a parameter or a submodule, which
`isinstance` does not see from Python 3.12 on. A wrapper around a model offers only what it forwards itself.

Shapes: B images, C channels, H x W pixels, N tokens, M context tokens, D width, h heads, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from vitexp.batch import PackedImages

Measurement = TypeVar("Measurement")
SEE = "see docs/extending.md"  # ends a refusal, behind the protocols that a part would have to follow
Row = dict[str, Any]  # of a table: column -> value
Groups = list[dict[str, Any]]  # of an optimizer: `params`, `names`, `lr` and `weight_decay` each


class Attention(Protocol):
    """`attention(dim, num_heads, grid=(rows, columns) or None)` builds one, a module from tokens to tokens.

    Its class may set `takes_mask`, `takes_bias`, `takes_context` and `needs_grid`; what it does not set is False.
    """

    def __call__(
        self, x: Tensor, *, context: Tensor | None = None, mask: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """(B, N, D) -> (B, N, D), with keys and values of `context` (B or 1, M, D), too, which are no queries.

        `mask` (True = may attend) and `bias` (added to the scores) broadcast to (B, h, N, N + M).
        """


class Model(Protocol):
    """Any `torch.nn.Module` whose constructor takes `num_classes`: that is all that train, evaluate and export need."""

    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, K)."""


class Regime(Protocol):
    """The choice of what trains in a model, applied once, after loading weights and before the optimizer is built."""

    def __call__(self, model: nn.Module, *, num_classes: int) -> nn.Module:
        """The model, changed in place or wrapped; its parameters with `requires_grad` train."""


class Task(Protocol):
    """Loss and metrics: a LightningModule over `model`. See vitexp.task.base.Task, which does what tasks share."""

    monitor: tuple[str, int]  # what chooses the best checkpoint, and whether more (+1) or less (-1) of it is better
    model: nn.Module
    evaluated: nn.Module | None  # what validation and testing run; None for `model` itself
    last_loss: Tensor | None
    grad_norm: Tensor | None  # before clipping, where gradients are clipped

    def groups(self, *, lr: float, weight_decay: float) -> Groups:
        """The optimizer's parameter groups."""


class Data(Protocol):
    """Images and their labels: a LightningDataModule. See vitexp.data.base.ImageData, which does what sets share.

    A batch is (images (B, C, H, W), labels (B,)); of a set with boxes (images, targets), one mapping an image.
    """

    num_classes: int
    class_names: Sequence[str]
    image_size: int
    channels: int
    mean: Sequence[float]
    std: Sequence[float]
    steps_per_epoch: int
    start: tuple[int, int]  # epoch and batch at which training goes on

    def sample(self, split: str, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """Some images (n, C, H, W) of a split, not augmented, and their labels (n,)."""


@runtime_checkable
class SupportsInventory(Protocol):
    """A data set that says what it holds, so that a resume on other data stops; without it none is noticed."""

    def inventory(self, *splits: str) -> Mapping[str, Mapping[str, Tensor]]:
        """Split -> column -> tensor with a row a sample: of `splits`, else of all. See vitexp.data.inventory."""


class Analysis(Protocol[Measurement]):
    """Numbers from a `Subject` (vitexp.analysis.base): a model and a few images."""

    name: ClassVar[str]

    def measure(self, subject: Any) -> Measurement:
        """Look at the subject."""

    def summary(self, measured: Measurement) -> dict[str, float]:
        """The few values that a curve over epochs or a terminal shows."""

    def rows(self, measured: Measurement) -> list[Row]:
        """All values, one row each, with equal keys."""

    def draw(self, measured: Mapping[str, Measurement], out: Path, title: str) -> None:
        """Write the picture of one or more measurements by label."""


@runtime_checkable
class SupportsTokens(Protocol):
    """A model of tokens: `embed`, `blocks` (each a vitexp.model.encoder.Block), `norm`, `pool`, `head`.

    One with a class token has it as the parameter `class_token`; `place` says what the first block gets of it.
    """

    num_prefix: int  # tokens before those of the grid

    def embed(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to tokens (B, N, D), positions included."""

    def pool(self, x: Tensor) -> Tensor:
        """Normed tokens (B, N, D) to what the head reads (B, D)."""


@runtime_checkable
class HasGrid(Protocol):
    """A model that knows the (rows, columns) of its tokens, or of its last map."""

    grid: tuple[int, int]


@runtime_checkable
class SupportsFeatures(Protocol):
    """A model that can be a detector's backbone."""

    strides: tuple[int, ...]  # pixels a cell of each map

    def features(self, images: Tensor) -> list[Tensor]:
        """Maps (B, C_i, H / strides[i], W / strides[i]), finest first."""


@runtime_checkable
class SupportsPacks(HasGrid, SupportsFeatures, Protocol):
    """A model that takes images of any sizes in sequences of tokens: its `forward` takes `PackedImages` too."""

    def read(self, images: PackedImages) -> Tensor:
        """The features of each image that the head reads: (images, D)."""

    def kernel_for(self, device: torch.device, *, half: bool = False) -> str:
        """The kernel of attention within packed sequences."""


@runtime_checkable
class SupportsAnySize(Protocol):
    """A model that takes images of another size than it was built for."""

    takes_any_size: Literal[True]


@runtime_checkable
class SupportsChannelsLast(Protocol):
    """A model that runs faster channels-last, which its layers do not show."""

    prefers_channels_last: Literal[True]


@runtime_checkable
class SupportsFusing(Protocol):
    """A model or a part of one that computes the same in fewer steps once it does not train."""

    def fuse(self) -> None:
        """Fold what can be folded, in place; calling it again changes nothing."""


@runtime_checkable
class SupportsForgetting(Protocol):
    """A part that `fuse` made keep what it had computed."""

    def forget(self) -> None:
        """Compute it in every call again, because training begins."""


@runtime_checkable
class SupportsNewHead(Protocol):
    """A model whose classifier can be replaced. Of one that does not say so it is the last linear layer."""

    num_classes: int
    head_name: str  # of the submodule that makes logits of features, such as `head`; empty where no single one does

    def reset_head(self, num_classes: int) -> None:
        """Put a zero head in place."""


@runtime_checkable
class SupportsLoading(Protocol):
    """A model whose tensors have other names elsewhere, or other shapes at other sizes; others load as they are."""

    family: str  # the foreign names stand in vitexp/checkpoint/names/<family>.py; without that file there are none
    head_names: tuple[str, ...]  # tensors whose shape depends on the number of classes
    position_tables: dict[str, int]  # learned table (1, P + rows * columns, D) over `grid` -> its P prefix rows

    def adapt(self, name: str, tensor: Tensor) -> tuple[Tensor, str] | None:
        """A tensor saved at another size made to fit, and how; None if it cannot be."""


@runtime_checkable
class SupportsLook(Protocol):
    """A detector, with its learned `queries` (Q, D): it says where each of them looks."""

    def look(self, images: Tensor, padding: Tensor | None = None) -> Tensor:
        """Attention of each query over the last map: (B, Q, rows, columns)."""


@runtime_checkable
class SupportsMaps(Protocol):
    """An attention with maps, for rollout, similarity, distance and heads."""

    maps: Callable[..., Any]  # of its input (B, N, D): the map (B, h, N, N), or several by name


@runtime_checkable
class HasBase(Protocol):
    """A model around a frozen base, as the regime left it."""

    fingerprint: str  # of the base's tensors
    plain_names: frozenset[str]  # of the base's tensors
    rates: Mapping[str, tuple[float, float | None]]  # parameter -> share of lr, weight decay or None for the rule
    earlier: Sequence[str]  # digests of the adapters that the last task was trained on top of


@runtime_checkable
class SupportsEmbedding(Protocol):
    """A model that trains on what its frozen part made of the images: `forward` takes both."""

    def embed_frozen(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to (B, F)."""


@runtime_checkable
class StaysInEval(Protocol):
    """A frozen part, in evaluation for good: none of its buffers moves."""

    stays_in_eval: Literal[True]


@runtime_checkable
class Undecayed(Protocol):
    """A part of whose weights none decays."""

    undecayed: Literal[True]
