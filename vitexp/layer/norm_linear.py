"""A batch-normalised linear classifier, which evaluation folds into one linear layer (Graham et al. 2021, LeViT, 4.2).

The norm stands before the linear layer, so W' = W diag(s) and b' = W t + b, where (s, t) are its scale and shift.
"""

import torch
from torch import Tensor, nn

from vitexp.layer.conv_norm import norm_as_affine


class NormLinear(nn.Module):
    """linear(norm(x)): (B, D) -> (B, K). Starts from N(0, 0.02), truncated at 2, and a zero bias."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.norm: nn.Module = nn.BatchNorm1d(in_features)
        self.linear = nn.Linear(in_features, out_features)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(self.norm(x))
        return out

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold the norm's running statistics into the linear layer, in place; calling it again changes nothing."""
        if isinstance(self.norm, nn.BatchNorm1d):
            scale, shift = norm_as_affine(self.norm)
            self.linear.bias.add_(self.linear.weight @ shift)
            self.linear.weight.mul_(scale)
            self.norm = nn.Identity()
