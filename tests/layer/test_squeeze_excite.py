"""Squeeze-and-excitation scales each channel by one number that all cells share."""

import torch

from vitexp.layer.squeeze_excite import SqueezeExcite


def test_equation() -> None:
    torch.manual_seed(0)
    layer, x = SqueezeExcite(6, 2), torch.randn(3, 6, 4, 5)
    mean = x.flatten(2).mean(-1)
    hidden = (mean @ layer.reduce.weight[..., 0, 0].T + layer.reduce.bias).relu()
    scale = 1 / (1 + torch.exp(-(hidden @ layer.expand.weight[..., 0, 0].T + layer.expand.bias)))
    torch.testing.assert_close(layer(x), x * scale[:, :, None, None])
