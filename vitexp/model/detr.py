"""DETR: Carion et al., "End-to-End Object Detection with Transformers" (ECCV 2020), section 3.2 and appendix A.

A backbone's map is encoded; 100 learned queries read it, layer by layer; each becomes one box and one class or "no
object". The heads are shared by the decoder's layers, and the loss scores every layer.

`refine_boxes` is Deformable DETR's iterative refinement (Zhu et al. 2021, section 4.2): each layer's box head corrects
the box of the layer before, in the space before the sigmoid. Off in DETR. Their deformable attention, the other half of
that paper, is not here: it reads maps of several scales by a sampling kernel, another encoder and decoder altogether.
"""

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.attention.base import check_heads
from vitexp.contract import SEE, HasGrid, SupportsFeatures, SupportsFusing, SupportsLoading
from vitexp.errors import ConfigError
from vitexp.layer.map_position import map_position
from vitexp.model.detr_layer import DecoderBlock, EncoderBlock, start_as_published
from vitexp.model.resnet import ResNet

_EPS = 1e-5
# The logit of 0.01.
_PRIOR = -math.log(99.0)


class Detections(NamedTuple):
    """Outputs of L decoder layers: `logits` (L, B, Q, K + 1), the last class none; `boxes_cxcywh` (L, B, Q, 4)."""

    logits: Tensor
    boxes_cxcywh: Tensor


class Detr(nn.Module):
    """Images (B, C, H, W), and where they are padded, to `Detections`.

    Args:
        backbone: offers `features(images) -> maps`, of which the last is read.
        attention: `attention(dim, num_heads, grid=None)`, one that has a map.
        position: sine or learned, of the map's cells.
        depths: blocks of the encoder and of the decoder.
        mlp_dim: hidden width of the blocks' mlps.
        num_classes: ids 0..K - 1; one more logit stands for no object.
        focal: class scores are sigmoids, which start at 0.01, so that the many queries without object do not drown the
            rest (Lin et al. 2017, section 4.1).
        dropout: after attentions and mlps; that of attention weights is the variant's own.

    Raises:
        ConfigError: an attention without a map, unknown positions, widths that do not divide.
    """

    family: ClassVar[str] = "detr"
    head_name: ClassVar[str] = "head"
    head_names: ClassVar[tuple[str, ...]] = ("head.classes.weight", "head.classes.bias")
    # Its frozen norms do not show that the convolutions run faster so (see vitexp.build.channels_last).
    prefers_channels_last: ClassVar[bool] = True

    def __init__(
        self,
        *,
        backbone: nn.Module,
        attention: Callable[..., nn.Module],
        position: str,
        dim: int,
        num_heads: int,
        depths: Sequence[int],
        mlp_dim: int,
        num_queries: int,
        num_classes: int,
        refine_boxes: bool,
        focal: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_classes, self.refine_boxes, self.focal = num_classes, refine_boxes, focal
        self.backbone = backbone
        if isinstance(backbone, HasGrid):
            self.grid = backbone.grid
        tables = backbone.position_tables if isinstance(backbone, SupportsLoading) else {}
        self.position_tables = {f"backbone.{name}": rows for name, rows in tables.items()}
        width, idle = last_map(backbone)
        for name in idle:
            backbone.get_parameter(name).requires_grad_(False)
        self.project = nn.Conv2d(width, dim, 1)
        self.position = map_position(position, dim)
        self.queries = nn.Parameter(torch.empty(num_queries, dim))
        options: dict[str, Any] = {"attention": attention, "mlp_dim": mlp_dim, "dropout": dropout}
        self.encoder = nn.ModuleList(EncoderBlock(dim, num_heads, **options) for _ in range(depths[0]))
        self.decoder = nn.ModuleList(DecoderBlock(dim, num_heads, **options) for _ in range(depths[1]))
        self.norm = nn.LayerNorm(dim)
        classes = nn.Linear(dim, num_classes + 1)
        if focal:
            nn.init.constant_(classes.bias, _PRIOR)
        self.head = nn.ModuleDict({"classes": classes, "boxes": BoxHead(dim)})
        nn.init.normal_(self.queries)
        start_as_published(self.encoder)
        start_as_published(self.decoder)

    def forward(
        self, images: Tensor, padding: Tensor | None = None, more: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> Detections:
        """`padding` is bool (B, H, W), True = padded pixel, or None where nothing is.

        `more` are N queries after the model's own, for training: contents and positions (B, N, D), and which of all
        Q + N may read which, (B, 1, Q + N, Q + N).
        """
        encoded, position, mask, _ = self.encode(images, padding)
        queries: Tensor = self.queries
        x, among = torch.zeros_like(queries).expand(len(images), -1, -1), None  # (B, Q, D)
        if more is not None:
            x, among = torch.cat([x, more[0]], dim=1), more[2]
            queries = torch.cat([queries.expand_as(x[:, : len(queries)]), more[1]], dim=1)
        layers = []
        for block in self.decoder:
            x = block(x, queries, encoded, position, mask, among=among)
            layers.append(self.norm(x))
        read = torch.stack(layers)  # (L, B, Q, D)
        return Detections(self.head["classes"](read), self._boxes(read))

    def encode(
        self, images: Tensor, padding: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None, tuple[int, int]]:
        """The encoded map and its positions (B, h*w, D), the mask (B, 1, 1, h*w) of its real cells, and (h, w)."""
        x = self.project(cast(SupportsFeatures, self.backbone).features(images)[-1])  # (B, D, h, w)
        grid = (x.shape[2], x.shape[3])
        cells = torch.zeros(len(x), *grid, dtype=torch.bool, device=x.device)
        if padding is not None:
            cells = F.interpolate(padding[:, None].float(), size=grid)[:, 0].bool()  # (B, h, w), nearest
        position = self.position(cells).flatten(2).transpose(1, 2).to(x.dtype)  # (B, h*w, D)
        mask = None if padding is None else ~cells.flatten(1)[:, None, None]  # (B, 1, 1, h*w)
        x = x.flatten(2).transpose(1, 2)  # (B, h*w, D)
        for block in self.encoder:
            x = block(x, position, mask)
        return x, position, mask, grid

    @torch.no_grad()
    def look(self, images: Tensor, padding: Tensor | None = None) -> Tensor:
        """Attention of each query in the last decoder layer, mean of heads: (B, Q, h, w), sums 1 (paper, Fig. 6)."""
        encoded, position, mask, grid = self.encode(images, padding)
        x = torch.zeros_like(self.queries).expand(len(images), -1, -1)
        *blocks, last = list[Any](self.decoder)
        for block in blocks:
            x = block(x, self.queries, encoded, position, mask)
        weights: Tensor = last.cross_weights(x, self.queries, encoded, position, mask)
        return weights.mean(1).unflatten(-1, grid)  # (B, Q, h, w)

    def reset_head(self, num_classes: int) -> None:
        """Put new class logits for `num_classes` in place, zero (`focal`: at their start); boxes and queries stay."""
        old: Any = self.head["classes"]
        new = nn.Linear(old.in_features, num_classes + 1, device=old.weight.device, dtype=old.weight.dtype)
        nn.init.zeros_(new.weight)
        nn.init.constant_(new.bias, _PRIOR if self.focal else 0.0)
        self.head["classes"] = new
        self.num_classes = num_classes

    def adapt(self, name: str, tensor: Tensor) -> tuple[Tensor, str] | None:
        """Let the backbone fit a tensor to another image size."""
        inner = name.removeprefix("backbone.")
        if inner == name or not isinstance(self.backbone, SupportsLoading):
            return None
        return self.backbone.adapt(inner, tensor)

    def fuse(self) -> None:
        """Fold the backbone's norms into its convolutions, in place, for evaluation."""
        if isinstance(self.backbone, SupportsFusing):
            self.backbone.fuse()

    def _boxes(self, read: Tensor) -> Tensor:
        """(L, B, Q, D) -> (L, B, Q, 4)."""
        # In full precision under autocast too: eight bits of a coordinate would be pixels. Norms give fp32 there.
        with nullcontext() if read.is_meta else torch.autocast(read.device.type, enabled=False):
            offsets = self.head["boxes"](read)
        if not self.refine_boxes:
            return offsets.sigmoid()
        boxes = [offsets[0].sigmoid()]
        for offset in offsets[1:]:
            boxes.append((offset + torch.logit(boxes[-1].detach(), eps=_EPS)).sigmoid())
        return torch.stack(boxes)


class BoxHead(nn.Module):
    """Three linear layers with ReLU between: (..., D) -> (..., 4), before the sigmoid."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, 4)])

    def forward(self, x: Tensor) -> Tensor:
        first, second, last = self.layers
        out: Tensor = last(F.relu(second(F.relu(first(x)))))
        return out


def last_map(backbone: nn.Module) -> tuple[int, list[str]]:
    """Channels of the backbone's last map, and the parameters that it does not depend on: a classifier's head, say.

    As a backbone says itself (`dim`, and then it has no such parameters), else by a run on the meta device. What no map
    depends on is kept, for checkpoints, and frozen, because processes that train together wait for its gradient.

    Raises:
        ConfigError: the backbone gives no maps.
    """
    if isinstance(backbone, ResNet):
        return backbone.dim, []
    if not isinstance(backbone, SupportsFeatures) or not isinstance(backbone, HasGrid):
        raise ConfigError(
            f"a detector reads the maps of its backbone and {type(backbone).__name__} gives none; use a model of vitexp"
            f" such as backbone=vit_ti16 (SupportsFeatures and HasGrid: {SEE})"
        )
    twin = copy.deepcopy(backbone).to("meta").eval().requires_grad_(True)
    in_channels = next(module.in_channels for module in twin.modules() if isinstance(module, nn.Conv2d))
    sides = [cells * backbone.strides[-1] for cells in backbone.grid]
    with torch.enable_grad():
        features = twin.features(torch.empty(1, in_channels, *sides, device="meta"))[-1]
    names, parameters = zip(*twin.named_parameters(), strict=True)
    found = torch.autograd.grad(features.sum(), parameters, allow_unused=True)
    return int(features.shape[1]), [name for name, gradient in zip(names, found, strict=True) if gradient is None]
