"""SiLU gives the same value and gradient in both modes, and copies nothing."""

import torch
from torch.nn import functional as F

from vitexp.layer.silu import Silu


def test_in_place_only_without_gradients():
    x = torch.randn(4, 5)
    expected = F.silu(x)
    leaf = x.clone().requires_grad_()
    out = Silu()(leaf * 1)
    out.sum().backward()
    reference = x.clone().requires_grad_()
    F.silu(reference).sum().backward()
    assert torch.equal(out, expected)
    assert torch.equal(leaf.grad, reference.grad)
    with torch.no_grad():
        assert Silu()(x) is x
    assert torch.equal(x, expected)
