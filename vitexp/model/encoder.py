"""The base of models over a sequence of tokens: the pre-norm block and the four named steps of an encoder."""

from abc import abstractmethod
from collections.abc import Callable

from torch import Tensor, nn

from vitexp.attention.base import flags_of
from vitexp.attention.documents import Documents
from vitexp.errors import ConfigError
from vitexp.layer.drop_path import DropPath
from vitexp.layer.mlp import Mlp
from vitexp.model.classifier import Classifier

NORM_EPS = 1e-6  # Flax's default: PyTorch's 1e-5 and Hugging Face's 1e-12 give other logits for published weights


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): ViT, equations 2 and 3. (B, N, D) -> (B, N, D).

    Context tokens pass through the attention's norm, as the tokens do (Sandler et al. 2022, Fig. 2a).
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        grid: tuple[int, int] | None,
        attention: Callable[..., nn.Module],
        mlp_ratio: float,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
        norm_bias: bool = True,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS, bias=norm_bias)
        self.attention = attention(dim, num_heads, grid=grid)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS, bias=norm_bias)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, *, context: Tensor | None = None, mask: Tensor | Documents | None = None) -> Tensor:
        check_takes(self.attention, context=context, mask=mask)
        if context is not None:
            context = self.norm1(context)
        # Unnamed, what attention gave is gone before the MLP: kept, it makes the allocator return memory to the system
        # and fetch it again in every block, a tenth of ViT-Ti's forward of 8 images.
        x = x + self.drop_path(self.dropout(self.attention(self.norm1(x), context=context, mask=mask)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class TokenEncoder(Classifier):
    """Images to logits in four named steps: `embed`, `blocks`, `norm`, `head`; (B, C, H, W) -> (B, K).

    Attributes:
        num_prefix: tokens before those of the grid.
    """

    num_prefix: int
    blocks: nn.ModuleList
    norm: nn.LayerNorm
    head: nn.Linear

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to tokens (B, N, D), positions included."""

    @abstractmethod
    def pool(self, x: Tensor) -> Tensor:
        """Normed tokens (B, N, D) to what the head reads (B, D)."""

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to the final, normed tokens (B, N, D)."""
        x = self.embed(images)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pool(self.encode(images)))  # (B, K)

    def features(self, images: Tensor) -> list[Tensor]:
        """The final tokens of the grid as one map (B, D, h, w), for detectors; `strides` has its scale."""
        x = self.encode(images)[:, self.num_prefix :]  # (B, h*w, D)
        return [x.transpose(1, 2).unflatten(2, self.grid)]


def check_takes(attention: nn.Module, *, context: Tensor | None, mask: Tensor | Documents | None) -> None:
    """Raise ConfigError for a context or a mask that the attention, by its flags, cannot take."""
    for name, given in (("context", context), ("mask", mask)):
        if given is not None and not getattr(attention, f"takes_{name}", False):
            raise ConfigError(
                f"attention={flags_of(attention).name} was given a {name} and has no map of weights for it; "
                "it takes tokens alone; use attention=softmax, cosine or reattention"
            )


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Rates that grow linearly from 0 at the first block to `rate` at the last (Huang et al. 2016, section 3)."""
    return [rate * index / max(depth - 1, 1) for index in range(depth)]
