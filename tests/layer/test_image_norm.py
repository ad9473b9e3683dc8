"""One mean and one variance an image, over sets, tokens and channels."""

import torch
from torch import nn
from torch.nn import functional as F

from vitexp.layer.image_norm import ImageNorm


def test_is_a_layer_norm_over_everything_with_an_affine_a_channel():
    norm, x = ImageNorm(5), torch.randn(3, 4, 6, 5) * 2 + 1
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    expected = F.layer_norm(x, x.shape[1:]) * norm.weight + norm.bias
    torch.testing.assert_close(norm(x), expected)
    assert norm(x).is_contiguous()
