"""Separable attention is its equation; the fast path equals the paper's order."""

from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.tiny import tiny_vit
from vitexp.attention.separable import Separable
from vitexp.errors import ConfigError

DIM = 12


def build(**options):
    torch.manual_seed(0)
    module = Separable(DIM, 3, **{"qkv_bias": True, **options})
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return module


def test_equation_token_by_token():
    attention, x = build().double(), torch.randn(2, 5, DIM, dtype=torch.double)
    weight, bias = attention.qkv_projection.weight, attention.qkv_projection.bias
    for tokens, out in zip(x, attention(x), strict=True):
        scores = tokens @ weight[0] + bias[0]
        shares = scores.exp() / scores.exp().sum()
        keys = tokens @ weight[1 : 1 + DIM].T + bias[1 : 1 + DIM]
        context = (shares[:, None] * keys).sum(0)
        values = (tokens @ weight[1 + DIM :].T + bias[1 + DIM :]).clamp(min=0)
        torch.testing.assert_close(out, (values * context) @ attention.out.weight.T + attention.out.bias)


@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_fast_path_equals_plain_path_and_its_gradients(qkv_bias, dropout):
    attention, x = build(qkv_bias=qkv_bias, dropout=dropout).double().train(), torch.randn(3, 7, DIM).double()
    found = []
    for path in (attention.forward, attention.forward_plain):
        attention.zero_grad()
        given = x.clone().requires_grad_()
        torch.manual_seed(1)  # the same weights are dropped
        out = path(given)
        out.square().sum().backward()
        found.append([out, given.grad, *(p.grad.clone() for p in attention.parameters())])
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain)


def test_weights_are_one_distribution():
    weights = build().weights(torch.randn(2, 7))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2))


def test_without_queries_the_context_is_the_mean_key():
    attention, x = build(), torch.randn(2, 6, DIM)
    with torch.no_grad():
        attention.qkv_projection.weight[0] = 0
        attention.qkv_projection.weight[1 + DIM :] = 0
        attention.qkv_projection.bias[1 + DIM :] = 1  # every value is 1
        keys = attention.qkv_projection(x)[..., 1 : 1 + DIM]
        expected = attention.out(keys.mean(1, keepdim=True)).expand(-1, 6, -1)
        torch.testing.assert_close(attention(x), expected)


def macs(function, tokens):
    with FlopCounterMode(display=False) as counter:
        function(torch.randn(1, tokens, DIM))
    return counter.get_total_flops()


def test_cost_is_linear_in_tokens():
    attention = build().eval()
    assert macs(attention.forward_plain, 64) == 2 * macs(attention.forward_plain, 32)
    assert macs(attention.forward, 64) < 2 * macs(attention.forward, 32)
    assert macs(attention.forward, 64) < macs(attention.forward_plain, 64)


def test_number_of_heads_changes_nothing():
    one, six = (Separable(DIM, heads, qkv_bias=True) for heads in (1, 6))
    six.load_state_dict(one.state_dict())
    x = torch.randn(2, 5, DIM)
    assert torch.equal(one(x), six(x))


def test_class_token_is_one_of_the_tokens():
    model = tiny_vit(attention=partial(Separable, qkv_bias=True)).eval()
    tokens = model.embed(torch.randn(2, 3, 16, 16))
    changed = tokens.clone()
    changed[:, 0] += torch.randn(16)
    block = model.blocks[0]
    assert (block(changed)[:, 1:] - block(tokens)[:, 1:]).abs().max() > 1e-4
    assert (model(torch.randn(2, 3, 16, 16)).abs() > 0).all()


@pytest.mark.parametrize("name", ["context", "mask", "bias"])
def test_what_needs_a_map_is_refused(name):
    with pytest.raises(ConfigError, match=f"was given a {name}, .*; use attention=softmax, cosine or reattention"):
        build()(torch.randn(1, 4, DIM), **{name: torch.ones(1, 1, 4, 4, dtype=torch.bool)})
