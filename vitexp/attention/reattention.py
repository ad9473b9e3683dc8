"""Re-attention: Zhou et al., "DeepViT: Towards Deeper Vision Transformer" (arXiv 2103.11886), equation 3.

As in the authors' code: Theta has a bias and starts at random, the norm is a batch norm over heads (the paper's text
leaves it open), the dropout stands before Theta. With a mask, what is hidden is zero after the norm as well, and the
norm's statistics are those of what is visible. The map is computed in float32 at least: its variance is tiny.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.attention.base import DenseAttention, masked_softmax
from vitexp.errors import ConfigError

THETAS = ("random", "identity")


@final
class Reattention(DenseAttention):
    """scale * norm(Theta softmax(q k^T / (temperature sqrt(d)) + bias)) v: (B, N, D) -> (B, N, D).

    Theta mixes the maps of the heads: out_g = sum over h of Theta_gh map_h + its bias. After the norm a row is no
    distribution: its weights have both signs and, in training, a mean of 0 over all rows of a head.

    Args:
        theta: how Theta starts: `random`, uniform within 1 / sqrt(H), or `identity`.
        transform_scale: whether the normed map is scaled by 1 / sqrt(d), as in DeepViT-S.
        dropout: share of the softmax's weights dropped in training.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        grid: tuple[int, int] | None = None,
        qkv_bias: bool,
        temperature: float,
        theta: str,
        transform_scale: bool,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(dim, num_heads, grid=grid, qkv_bias=qkv_bias, dropout=dropout)
        if theta not in THETAS:
            raise ConfigError(
                f"model.attention.theta={theta} is unknown; the mixing of heads starts at random or as no mixing; "
                f"use {' or '.join(THETAS)}"
            )
        self.scale = self.head_dim**-0.5 / temperature
        self.map_scale = self.head_dim**-0.5 if transform_scale else 1.0
        self.theta = nn.Conv2d(num_heads, num_heads, 1)
        self.norm = nn.BatchNorm2d(num_heads)
        assert self.theta.bias is not None
        if theta == "identity":
            nn.init.dirac_(self.theta.weight)
            nn.init.zeros_(self.theta.bias)
        else:
            nn.init.uniform_(self.theta.weight, -(num_heads**-0.5), num_heads**-0.5)
            nn.init.uniform_(self.theta.bias, -(num_heads**-0.5), num_heads**-0.5)

    def softmax_weights(self, q: Tensor, k: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """The map before mixing, rows that sum to 1: (B, H, N, N + M)."""
        scores = (q * self.scale) @ k.transpose(-2, -1)  # (B, H, N, N + M)
        scores = scores if bias is None else scores + bias
        return masked_softmax(_precise(scores), mask)

    def weights(self, q: Tensor, k: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """The mixed and normed map that values are read by: (B, H, N, N + M). Running statistics stay as they are."""
        return self._mix(self.softmax_weights(q, k, mask, bias), _hidden(mask, bias), track=False)

    def maps(self, q: Tensor, k: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> dict[str, Tensor]:
        """`softmax`, which is a distribution, and `mixed`, which values are read by; for analyses."""
        softmax = self.softmax_weights(q, k, mask, bias)
        return {"softmax": softmax, "mixed": self._mix(softmax, _hidden(mask, bias), track=False)}

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        maps = F.dropout(self.softmax_weights(q, k, mask, bias), self.dropout_rate, self.training)
        return self._mix(maps, _hidden(mask, bias), track=True).to(v.dtype) @ v

    def _mix(self, maps: Tensor, hidden: Tensor | None, *, track: bool) -> Tensor:
        """Maps mixed, normed, scaled, and zero where hidden. In evaluation all of that is one affine map of heads."""
        norm, dtype = self.norm, maps.dtype
        assert self.theta.bias is not None
        assert norm.running_mean is not None
        assert norm.running_var is not None
        theta, bias = self.theta.weight.flatten(1).to(dtype), self.theta.bias.to(dtype)
        gain, shift = norm.weight.to(dtype) * self.map_scale, norm.bias.to(dtype) * self.map_scale
        with _without_autocast(maps.device.type):
            if self.training:
                mixed = _mixed(theta, bias, maps)
                mean, var = self._statistics(mixed, hidden, track)
                gain = (gain / torch.sqrt(var + norm.eps))[:, None, None]
                mixed = torch.addcmul(shift[:, None, None], mixed - mean[:, None, None], gain)
            else:
                gain = gain / torch.sqrt(norm.running_var.to(dtype) + norm.eps)
                bias = (bias - norm.running_mean.to(dtype)) * gain + shift
                mixed = _mixed(theta * gain[:, None], bias, maps)
        return mixed if hidden is None else mixed.masked_fill(hidden, 0.0)

    def _statistics(self, mixed: Tensor, hidden: Tensor | None, track: bool) -> tuple[Tensor, Tensor]:
        """Mean and biased variance (H) of what is visible; with `track`, the running ones move towards them."""
        if hidden is None:
            count = mixed.new_tensor(mixed[:, 0].numel())
            var, mean = torch.var_mean(mixed, dim=(0, 2, 3), correction=0)
        else:
            visible = (~hidden).expand_as(mixed)
            count = visible.sum(dim=(0, 2, 3)).clamp(min=1).to(mixed.dtype)
            mean = (mixed * visible).sum(dim=(0, 2, 3)) / count
            var = ((mixed - mean[:, None, None]).square() * visible).sum(dim=(0, 2, 3)) / count
        if track:
            self._follow(mean.detach(), var.detach() * count / (count - 1).clamp(min=1))
        return mean, var

    @torch.no_grad()
    def _follow(self, mean: Tensor, var: Tensor) -> None:
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        assert norm.momentum is not None
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
        norm.running_var.lerp_(var.to(norm.running_var.dtype), norm.momentum)
        norm.num_batches_tracked.add_(1)


def _mixed(theta: Tensor, bias: Tensor, maps: Tensor) -> Tensor:
    """Theta over the heads. Not a call of the convolution: that follows a channels-last weight, and the map with it."""
    mixed = torch.baddbmm(bias[:, None], theta.expand(maps.shape[0], -1, -1), maps.flatten(2))  # (B, H, N * (N + M))
    return mixed.unflatten(2, maps.shape[2:])  # (B, H, N, N + M)


def _hidden(mask: Tensor | None, bias: Tensor | None) -> Tensor | None:
    """The places without a weight: the mask's False and the bias's -inf."""
    if bias is None:
        return None if mask is None else ~mask
    infinite = torch.isneginf(bias)
    return infinite if mask is None else infinite | ~mask


def _precise(scores: Tensor) -> Tensor:
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


def _without_autocast(device: str) -> AbstractContextManager[None]:
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
