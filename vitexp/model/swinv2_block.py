"""The residual block of Swin Transformer V2 and its patch merging: Liu et al. (CVPR 2022), sections 3.1 and 3.2."""

from collections.abc import Callable

from torch import Tensor, nn

from vitexp.attention.base import flags_of
from vitexp.errors import ConfigError
from vitexp.layer.drop_path import DropPath
from vitexp.layer.mlp import Mlp
from vitexp.layer.relative_bias import relative_bias
from vitexp.layer.window import Windows

NORMS = ("res_post", "pre", "post", "sandwich")


class SwinBlock(nn.Module):
    """Window attention, then an MLP, each in a residual branch: (B, h, w, D) -> (B, h, w, D).

    Where the norms stand (paper, Table 7), f being attention or MLP:

        res_post  x + norm(f(x)), norms starting at zero: each block starts as the identity (the paper's)
        pre       x + f(norm(x))
        post      norm(x + f(x))
        sandwich  x + norm(f(norm(x)))

    Args:
        dim, num_heads: width and heads.
        windows: cuts the map.
        pretrained: (h, w) of the window that the weights were trained with.
        attention: `attention(dim, num_heads, grid=...)`, must take masks and biases.
        norm: res_post, pre, post or sandwich.
        bias: cpb_log, cpb_linear or parameterised.
        bias_hidden_dim: width of the bias net.
        mlp_ratio: width of the MLP over dim.
        extra_norm: one more norm on the main branch at the end (paper, section 3.1: every 6 blocks of the largest).
        dropout: in both layers of the MLP.
        drop_path_rate: of both branches.

    Raises:
        ConfigError: an attention without masks or biases, an unknown norm or bias.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        windows: Windows,
        pretrained: tuple[int, int],
        attention: Callable[..., nn.Module],
        norm: str,
        bias: str,
        bias_hidden_dim: int,
        mlp_ratio: float,
        extra_norm: bool,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        check_attention(attention)
        if norm not in NORMS:
            raise ConfigError(f"model.block.norm={norm} is unknown; use {', '.join(NORMS[:-1])} or {NORMS[-1]}")
        self.norm = norm
        self.windows = windows
        self.attention = attention(dim, num_heads, grid=windows.window)
        self.bias = relative_bias(
            bias, window=windows.window, num_heads=num_heads, pretrained=pretrained, hidden_dim=bias_hidden_dim
        )
        self.norm1 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dropout=dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.inner1 = nn.LayerNorm(dim) if norm == "sandwich" else nn.Identity()
        self.inner2 = nn.LayerNorm(dim) if norm == "sandwich" else nn.Identity()
        self.norm3 = nn.LayerNorm(dim) if extra_norm else nn.Identity()
        self.drop_path = DropPath(drop_path_rate)
        self._start()

    def forward(self, x: Tensor) -> Tensor:
        x = self._residual(x, self._attend, self.norm1, self.inner1)
        x = self._residual(x, self.mlp, self.norm2, self.inner2)
        return self.norm3(x)

    def _residual(self, x: Tensor, f: Callable[[Tensor], Tensor], norm: nn.Module, inner: nn.Module) -> Tensor:
        if self.norm == "pre":
            return x + self.drop_path(f(norm(x)))
        if self.norm == "post":
            return norm(x + self.drop_path(f(x)))
        return x + self.drop_path(norm(f(inner(x))))

    def _attend(self, x: Tensor) -> Tensor:
        """Attention inside each window."""
        grid = (x.shape[1], x.shape[2])
        read = self.attention(self.windows.cut(x), mask=self.windows.mask(grid, x.shape[0]), bias=self.bias())
        return self.windows.join(read, grid)

    def _start(self) -> None:
        """Linear weights from a truncated N(0, 0.02), biases 0, norms 1, but those of res_post 0."""
        for module in self.modules():
            start_linear(module)
        if self.norm == "res_post":
            for norm in (self.norm1, self.norm2):
                nn.init.zeros_(norm.weight)


class PatchMerging(nn.Module):
    """Each 2 x 2 cells become one of twice the width: linear, then norm (V1: norm, then linear).

    (B, h, w, D) -> (B, h / 2, w / 2, 2 D). The four come in the order (y, x) = (0, 0), (1, 0), (0, 1), (1, 1); a map of
    odd sides gets a row or column of zeros.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(2 * dim)
        start_linear(self.reduction)

    def forward(self, x: Tensor) -> Tensor:
        odd_rows, odd_columns = x.shape[1] % 2, x.shape[2] % 2
        if odd_rows or odd_columns:
            x = nn.functional.pad(x, (0, 0, 0, odd_columns, 0, odd_rows))
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (B, h / 2, 2, w / 2, 2, D)
        return self.norm(self.reduction(x.permute(0, 1, 3, 4, 2, 5).flatten(3)))


def start_linear(module: nn.Module) -> None:
    """The authors' starting values of a linear layer, in place; other modules keep theirs."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def start_conv(module: nn.Module) -> None:
    """The authors' starting values of a convolution, torch's own, in place; other modules keep theirs."""
    if isinstance(module, nn.Conv2d):
        module.reset_parameters()


def check_attention(attention: Callable[..., nn.Module]) -> None:
    """Raise ConfigError unless the variant takes a mask and a bias, which windows need."""
    variant = flags_of(attention)
    if variant.takes_mask and variant.takes_bias:
        return
    lacking = " and ".join(["mask"] * (not variant.takes_mask) + ["bias"] * (not variant.takes_bias))
    raise ConfigError(
        f"model=swinv2 with attention={variant.name}: shifted windows need an attention that takes a mask "
        f"and a bias for each pair, and this one takes no {lacking}; use attention=cosine, softmax or reattention"
    )
