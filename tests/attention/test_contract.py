"""Every file in conf/attention keeps the attention contract, by its class's own flags."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from vitexp.attention.base import DenseAttention, variant_class
from vitexp.build import make
from vitexp.config.compose import conf_dir
from vitexp.errors import ConfigError

DIM, HEADS, GRID, BATCH, CONTEXT = 24, 3, (3, 4), 2, 5
TOKENS = GRID[0] * GRID[1]
FILES = sorted((conf_dir() / "attention").glob("*.yaml"), key=lambda path: path.stem)


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def factory(request):
    path: Path = request.param
    assert path.read_text().splitlines()[0] == "# @package model.attention"
    return make(OmegaConf.load(path))


@pytest.fixture
def attention(factory):
    torch.manual_seed(0)
    module = factory(DIM, HEADS, grid=GRID).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return module


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randn(BATCH, TOKENS, DIM)


def needs(module, flag):
    if not getattr(module, flag):
        pytest.skip(f"{type(module).__name__}.{flag} is False")


def random_mask(keys):
    torch.manual_seed(2)
    mask = torch.rand(BATCH, 1, TOKENS, keys) > 0.5
    mask[..., 0] = True
    return mask


def test_flags_are_declared(factory):
    variant = variant_class(factory)
    for flag in ("takes_mask", "takes_bias", "takes_context", "needs_grid"):
        assert isinstance(getattr(variant, flag), bool)


def test_shape_and_gradients(attention, x):
    out = attention(x)
    assert out.shape == x.shape
    out.square().sum().backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_samples_do_not_mix(attention, x):
    torch.testing.assert_close(attention(x)[1:], attention(x[1:]))


def test_heads_must_divide(factory):
    with pytest.raises(ConfigError, match=r"num_heads must divide dim; use one of 1, 2, 3$"):
        factory(DIM, 5, grid=GRID)


def test_permutation_equivariance(attention, x):
    if attention.needs_grid:
        pytest.skip("tokens have places in a grid")
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(attention(x[:, order]), attention(x)[:, order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_fused_equals_plain(attention, x, masked, biased):
    if not isinstance(attention, DenseAttention):
        pytest.skip("no map")
    mask = random_mask(TOKENS) if masked else None
    bias = torch.randn(1, HEADS, TOKENS, TOKENS) if biased else None
    q, k, v = attention.qkv(x)
    plain = attention.weights(q, k, mask, bias) @ v
    torch.testing.assert_close(attention.attend(q, k, v, mask, bias), plain, atol=1e-5, rtol=1e-5)


def test_hidden_keys_have_no_influence(attention, x):
    needs(attention, "takes_mask")
    mask = torch.ones(1, 1, TOKENS, TOKENS, dtype=torch.bool)
    mask[..., 7:] = False
    changed = x.clone()
    changed[:, 7:] += 3
    torch.testing.assert_close(attention(x, mask=mask)[:, :7], attention(changed, mask=mask)[:, :7])
    assert (attention(x)[:, :7] - attention(changed)[:, :7]).abs().max() > 1e-3
    torch.testing.assert_close(attention(x, mask=mask)[:, :7], attention(x[:, :7]), atol=1e-5, rtol=1e-5)


def test_masked_weights_are_zero(attention, x):
    needs(attention, "takes_mask")
    q, k, _ = attention.qkv(x)
    mask = random_mask(TOKENS)
    weights = attention.weights(q, k, mask)
    assert weights.shape == (BATCH, HEADS, TOKENS, TOKENS)
    assert weights.masked_fill(mask, 0.0).abs().max() == 0


def test_query_that_may_attend_nothing(attention, x):
    needs(attention, "takes_mask")
    mask = torch.ones(BATCH, 1, TOKENS, TOKENS, dtype=torch.bool)
    mask[:, :, 3] = False
    x.requires_grad_()
    out = attention(x, mask=mask)
    torch.testing.assert_close(out[:, 3], attention.out.bias.expand(BATCH, -1))
    out.sum().backward()
    assert x.grad.isfinite().all()


def test_context_adds_keys_and_values(attention, x):
    needs(attention, "takes_context")
    context = torch.randn(BATCH, CONTEXT, DIM)
    q, k, v = attention.qkv(x, context)
    assert (q.shape[2], k.shape[2], v.shape[2]) == (TOKENS, TOKENS + CONTEXT, TOKENS + CONTEXT)
    joined = attention(torch.cat([x, context], dim=1))[:, :TOKENS]
    torch.testing.assert_close(attention(x, context=context), joined, atol=1e-5, rtol=1e-5)
    shared = attention(x, context=context[:1])
    torch.testing.assert_close(shared, attention(x, context=context[:1].expand(BATCH, -1, -1)))


def test_masked_context(attention, x):
    needs(attention, "takes_context")
    context = torch.randn(1, CONTEXT, DIM)
    mask = torch.ones(1, 1, TOKENS, TOKENS + CONTEXT, dtype=torch.bool)
    mask[..., TOKENS:] = False
    torch.testing.assert_close(attention(x, context=context, mask=mask), attention(x), atol=1e-5, rtol=1e-5)


def test_bias_reaches_the_scores(attention, x):
    needs(attention, "takes_bias")
    bias = torch.zeros(1, HEADS, TOKENS, TOKENS)
    torch.testing.assert_close(attention(x, bias=bias), attention(x), atol=1e-5, rtol=1e-5)
    hidden = bias.clone()
    hidden[..., 7:] = -torch.inf
    torch.testing.assert_close(attention(x, bias=hidden)[:, :7], attention(x[:, :7]), atol=1e-5, rtol=1e-5)


def test_bfloat16(attention, x):
    out = attention.to(torch.bfloat16)(x.to(torch.bfloat16))
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()
