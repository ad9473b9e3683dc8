"""DeepViT: Zhou et al., "DeepViT: Towards Deeper Vision Transformer" (arXiv 2103.11886); and the plain ViTs beside it.

The authors' block is x + f(norm(a x)) / a with a = `scale`, which they call scale_adjustment. Written for y = a x it is
the plain pre-norm block y + f(norm(y)), so here the embedding is scaled once and the blocks are ViT's; the last norm
then reads y instead of y / a, which its epsilon makes up for. The logits are the authors'; a block's x is a times
theirs. Starting values are theirs too: linear layers, positions and the class token from N(0, 0.02), truncated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from vitexp.errors import ConfigError
from vitexp.model.encoder import NORM_EPS
from vitexp.model.vit import ViT


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The differences of one DeepViT from another besides its size.

    Attributes:
        plain_blocks: how many blocks from the first on have `plain_attention` instead of the model's attention.
        plain_attention: their variant.
        scale: of the embedding, a above.
        transform_scale: whether the normed maps of re-attention are scaled; conf/attention/reattention.yaml reads it,
            so that another attention, which has no such key, goes into the same model.
    """

    plain_blocks: int
    plain_attention: Callable[..., nn.Module]
    scale: float
    transform_scale: bool


class DeepViT(ViT):
    """A ViT whose last blocks have `attention` and whose first have `layout.plain_attention`.

    The arguments are ViT's, without its dropout, which the authors do not use.

    Raises:
        ConfigError: what ViT refuses, more plain blocks than blocks, a scale that is not positive.
    """

    family: ClassVar[str] = "deepvit"

    def __init__(
        self,
        *,
        image_size: int | Sequence[int],
        in_channels: int,
        stem: Callable[..., Any],
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        attention: Callable[..., nn.Module],
        num_classes: int,
        pool: str,
        layout: Layout,
        drop_path_rate: float = 0.0,
    ) -> None:
        if not 0 <= layout.plain_blocks <= depth:
            raise ConfigError(
                f"model.layout.plain_blocks={layout.plain_blocks} is not a part of model.depth={depth} blocks; it must "
                f"be from 0 to {depth}; use model.layout.plain_blocks=0 for the same attention in all blocks"
            )
        if layout.scale <= 0:
            raise ConfigError(f"model.layout.scale={layout.scale} is out of range; use a value above 0, such as 0.5")
        plain = [layout.plain_attention] * layout.plain_blocks
        super().__init__(
            image_size=image_size,
            in_channels=in_channels,
            stem=stem,
            dim=dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            attention=[*plain, *[attention] * (depth - layout.plain_blocks)],
            num_classes=num_classes,
            pool=pool,
            drop_path_rate=drop_path_rate,
        )
        self.scale = layout.scale
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS * self.scale**2)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.position, std=0.02)
        if self.class_token is not None:
            nn.init.trunc_normal_(self.class_token, std=0.02)

    def embed(self, images: Tensor) -> Tensor:
        return self.scale * super().embed(images)

    def place(self, token: Tensor) -> Tensor:
        return self.scale * super().place(token)
