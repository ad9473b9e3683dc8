"""The contract of an attention as checks that any of them can be put to: by vitexp's tests, and by those of your own.

    @pytest.mark.parametrize("check", checks_for(FACTORY))
    def test_contract(check):
        check(FACTORY)

A factory is called as models call it, `factory(dim, num_heads, grid=...)`; each check raises AssertionError.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.testing import assert_close

from vitexp.attention.base import DenseAttention, flags_of
from vitexp.errors import ConfigError

DIM, HEADS, GRID, BATCH, CONTEXT = 24, 3, (3, 4), 2, 5
TOKENS = GRID[0] * GRID[1]
FLAGS = ("takes_mask", "takes_bias", "takes_context", "needs_grid")
CLOSE = 1e-5

Factory = Callable[..., nn.Module]
Check = Callable[[Factory], None]


def checks_for(factory: Factory) -> Sequence[Check]:
    """The checks that apply, by the flags of the factory's class; a flag that it does not have is False."""
    flags = flags_of(factory)
    has = {flag: getattr(flags, flag) for flag in FLAGS}
    asked = {
        "takes_mask": (hidden_keys_have_no_influence,),
        "takes_context": (context_adds_keys_and_values, masked_context_is_none),
        "takes_bias": (bias_reaches_the_scores,),
    }
    maps = (fused_equals_plain, masked_weights_are_zero, a_query_that_may_attend_nothing)
    return [
        *(flags_are_declared, shape_and_gradients, samples_do_not_mix, heads_must_divide, bfloat16_stays),
        *([] if has["needs_grid"] else [permuted_tokens_give_permuted_answers]),
        *(check for flag, found in asked.items() if has[flag] for check in found),
        *(maps if has["takes_mask"] and issubclass(flags.kind, DenseAttention) else ()),
    ]


def flags_are_declared(factory: Factory) -> None:
    assert all(isinstance(getattr(flags_of(factory).kind, flag, None), bool) for flag in FLAGS)


def shape_and_gradients(factory: Factory) -> None:
    attention, x = _built(factory), _tokens()
    out = attention(x)
    assert out.shape == x.shape
    out.square().sum().backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def samples_do_not_mix(factory: Factory) -> None:
    attention, x = _built(factory), _tokens()
    assert_close(attention(x)[1:], attention(x[1:]))


def heads_must_divide(factory: Factory) -> None:
    said = ""
    try:
        factory(DIM, 5, grid=GRID)
    except ConfigError as error:
        said = str(error)
    assert "num_heads must divide dim; use one of" in said


def permuted_tokens_give_permuted_answers(factory: Factory) -> None:
    attention, x = _built(factory), _tokens()
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(0))
    assert_close(attention(x[:, order]), attention(x)[:, order], atol=CLOSE, rtol=CLOSE)


def fused_equals_plain(factory: Factory) -> None:
    attention = _built(factory)
    q, k, v = attention.qkv(_tokens())
    for mask in (None, _mask(TOKENS)):
        for bias in (None, torch.randn(1, HEADS, TOKENS, TOKENS)):
            plain = attention.weights(q, k, mask, bias) @ v
            assert_close(attention.attend(q, k, v, mask, bias), plain, atol=CLOSE, rtol=CLOSE)


def hidden_keys_have_no_influence(factory: Factory) -> None:
    attention, x = _built(factory), _tokens()
    mask = torch.ones(1, 1, TOKENS, TOKENS, dtype=torch.bool)
    mask[..., 7:] = False
    changed = x.clone()
    changed[:, 7:] += 3
    assert_close(attention(x, mask=mask)[:, :7], attention(changed, mask=mask)[:, :7])
    assert (attention(x)[:, :7] - attention(changed)[:, :7]).abs().max() > 1e-3
    assert_close(attention(x, mask=mask)[:, :7], attention(x[:, :7]), atol=CLOSE, rtol=CLOSE)


def masked_weights_are_zero(factory: Factory) -> None:
    attention = _built(factory)
    q, k, _ = attention.qkv(_tokens())
    mask = _mask(TOKENS)
    weights = attention.weights(q, k, mask)
    assert weights.shape == (BATCH, HEADS, TOKENS, TOKENS)
    assert weights.masked_fill(mask, 0.0).abs().max() == 0


def a_query_that_may_attend_nothing(factory: Factory) -> None:
    attention, x = _built(factory), _tokens().requires_grad_()
    mask = torch.ones(BATCH, 1, TOKENS, TOKENS, dtype=torch.bool)
    mask[:, :, 3] = False
    out = attention(x, mask=mask)
    assert_close(out[:, 3], attention.out.bias.expand(BATCH, -1))
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def context_adds_keys_and_values(factory: Factory) -> None:
    attention, x, context = _built(factory), _tokens(), torch.randn(BATCH, CONTEXT, DIM)
    q, k, v = attention.qkv(x, context)
    assert (q.shape[2], k.shape[2], v.shape[2]) == (TOKENS, TOKENS + CONTEXT, TOKENS + CONTEXT)
    joined = attention(torch.cat([x, context], dim=1))[:, :TOKENS]
    assert_close(attention(x, context=context), joined, atol=CLOSE, rtol=CLOSE)
    shared = attention(x, context=context[:1])
    assert_close(shared, attention(x, context=context[:1].expand(BATCH, -1, -1)))


def masked_context_is_none(factory: Factory) -> None:
    attention, x = _built(factory), _tokens()
    mask = torch.ones(1, 1, TOKENS, TOKENS + CONTEXT, dtype=torch.bool)
    mask[..., TOKENS:] = False
    context = torch.randn(1, CONTEXT, DIM)
    assert_close(attention(x, context=context, mask=mask), attention(x), atol=CLOSE, rtol=CLOSE)


def bias_reaches_the_scores(factory: Factory) -> None:
    attention, x = _built(factory), _tokens()
    bias = torch.zeros(1, HEADS, TOKENS, TOKENS)
    assert_close(attention(x, bias=bias), attention(x), atol=CLOSE, rtol=CLOSE)
    bias[..., 7:] = -torch.inf
    assert_close(attention(x, bias=bias)[:, :7], attention(x[:, :7]), atol=CLOSE, rtol=CLOSE)


def bfloat16_stays(factory: Factory) -> None:
    out = _built(factory).to(torch.bfloat16)(_tokens().to(torch.bfloat16))
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()


def _built(factory: Factory) -> Any:
    """The attention in evaluation mode, all its parameters away from their start."""
    torch.manual_seed(0)
    attention = factory(DIM, HEADS, grid=GRID).eval()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return attention


def _tokens() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(BATCH, TOKENS, DIM)


def _mask(keys: int) -> Tensor:
    """A query sees some keys, the first always."""
    torch.manual_seed(2)
    mask = torch.rand(BATCH, 1, TOKENS, keys) > 0.5
    mask[..., 0] = True
    return mask
