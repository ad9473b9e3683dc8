"""SiLU (Hendrycks and Gimpel 2016), in place where no gradient is wanted."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Silu(nn.Module):
    """x sigmoid(x), for an input that nothing else reads: the output of a convolution, a norm or a linear map.

    Its gradient needs the input, so autograd would copy the map before an in-place call: that costs more than it saves.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x, inplace=not torch.is_grad_enabled())
