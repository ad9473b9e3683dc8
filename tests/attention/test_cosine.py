"""Cosine attention is its equation, in one go and in chunks."""

import math
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from tests.tiny import tiny_vit
from vitexp.attention.cosine import Cosine
from vitexp.errors import ConfigError

DIM, HEADS = 12, 3


def build(**options):
    torch.manual_seed(0)
    attention = Cosine(DIM, HEADS, **{"qkv_bias": True, "scale": 10.0, "max_scale": 100.0, "chunk": 0, **options})
    with torch.no_grad():
        for name, parameter in attention.named_parameters():
            if "bias" in name:
                parameter.normal_()
        attention.logit_scale.add_(torch.randn_like(attention.logit_scale))
    return attention


def test_equation_head_by_head():
    attention, x = build().double(), torch.randn(2, 5, DIM, dtype=torch.double)
    projection = attention.qkv_projection
    bias = torch.cat([projection.q_bias, torch.zeros(DIM), projection.v_bias])
    queries, keys, values = (x @ projection.weight.T + bias).chunk(3, dim=-1)
    read = []
    for head in range(HEADS):
        part = slice(head * 4, head * 4 + 4)
        cosines = F.normalize(queries[..., part], dim=-1) @ F.normalize(keys[..., part], dim=-1).mT
        scores = cosines * attention.logit_scale[head].clamp(max=math.log(100)).exp()
        read.append(scores.softmax(-1) @ values[..., part])
    torch.testing.assert_close(attention(x), attention.out(torch.cat(read, dim=-1)))


def test_each_head_starts_at_a_temperature_of_a_tenth():
    fresh = Cosine(DIM, HEADS, qkv_bias=True, scale=10.0, max_scale=100.0, chunk=0)
    assert fresh.logit_scale.shape == (HEADS, 1, 1)
    torch.testing.assert_close(fresh.logit_scale, torch.full((HEADS, 1, 1), math.log(10)))


def test_parameters_are_those_of_the_reference():
    """No bias of keys, one scale a head."""
    shapes = {name: tuple(parameter.shape) for name, parameter in build().named_parameters()}
    assert shapes.pop("logit_scale") == (HEADS, 1, 1)
    assert shapes == {
        "qkv_projection.weight": (3 * DIM, DIM),
        "qkv_projection.q_bias": (DIM,),
        "qkv_projection.v_bias": (DIM,),
        "out.weight": (DIM, DIM),
        "out.bias": (DIM,),
    }
    assert build(qkv_bias=False).qkv_projection.bias is None


@pytest.mark.parametrize("rows", [slice(0, DIM), slice(DIM, 2 * DIM)])
def test_length_of_queries_and_keys_does_not_matter(rows):
    attention, x = build(), torch.randn(2, 7, DIM)
    before = attention(x)
    with torch.no_grad():
        attention.qkv_projection.weight[rows] *= 7
        if rows.start == 0:
            attention.qkv_projection.q_bias *= 7
    torch.testing.assert_close(attention(x), before, atol=1e-5, rtol=1e-5)


def test_scale_above_its_bound_is_the_bound_without_gradient():
    attention, x = build(), torch.randn(2, 7, DIM)
    with torch.no_grad():
        attention.logit_scale.copy_(torch.tensor([4.0, 4.7, 6.0]).view(3, 1, 1))
    attention(x).square().sum().backward()
    gradient = attention.logit_scale.grad.flatten()
    assert gradient[0] != 0
    assert torch.equal(gradient[1:], torch.zeros(2))
    before = attention(x)
    with torch.no_grad():
        attention.logit_scale[1:] = math.log(100)
    torch.testing.assert_close(attention(x), before)


def test_zero_tokens_are_finite_both_ways():
    attention = build(qkv_bias=False)
    x = torch.zeros(1, 4, DIM, requires_grad=True)
    attention(x).sum().backward()
    assert x.grad.isfinite().all()


def test_normalises_in_full_precision_under_autocast():
    """Tokens of one direction and lengths that overflow a half float's square have cosines of one."""
    attention = build(qkv_bias=False)
    q = torch.full((1, HEADS, 2, 4), 3e4, dtype=torch.float16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights = attention.weights(q, q)
        out = attention(torch.randn(2, 5, DIM))
    torch.testing.assert_close(weights, torch.full_like(weights, 0.5))
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()


MASKED = (torch.rand(6, 1, 7, 7, generator=torch.Generator().manual_seed(1)) > 0.4) | torch.eye(7, dtype=torch.bool)


@pytest.mark.parametrize("chunk", [3, 7, 16])  # parts of a sequence, one and two at a time
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("mask", [None, MASKED, MASKED[0, 0]])
def test_chunks_equal_the_whole(chunk, training, mask):
    whole, chunked = build().train(training), build(chunk=chunk).train(training)
    x = torch.randn(6, 7, DIM, requires_grad=training)
    bias = torch.randn(1, HEADS, 7, 7, requires_grad=training)
    results = []
    for attention in (whole, chunked):
        x.grad = bias.grad = None
        out = attention(x, mask=mask, bias=bias)
        if training:
            out.square().sum().backward()
            gradients = [parameter.grad for parameter in attention.parameters()]
            out = torch.cat([out.flatten(), *(g.flatten() for g in [x.grad, bias.grad, *gradients])])
        results.append(out)
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)


def test_chunks_with_context_equal_the_whole():
    x, context = torch.randn(3, 7, DIM), torch.randn(1, 4, DIM)
    torch.testing.assert_close(build(chunk=5)(x, context=context), build()(x, context=context))


def kept_for_the_gradient(attention, x, bias):
    """Bytes of distinct tensors that the graph holds, parameters left out."""
    own = {parameter.data_ptr() for parameter in attention.parameters()}
    held = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = attention(x, bias=bias)
    out.sum().backward()
    return sum(held.values())


def test_chunks_hold_no_map_in_training():
    x, bias = torch.randn(16, 64, DIM), torch.randn(1, HEADS, 64, 64, requires_grad=True)
    the_map = 16 * HEADS * 64 * 64 * 4
    assert kept_for_the_gradient(build(chunk=64), x, bias) <= kept_for_the_gradient(build(), x, bias) - the_map


def test_chunks_have_gradients_that_are_asked_for_by_name():
    """As analyses ask, without a backward pass over the whole graph."""
    x = torch.randn(2, 7, DIM, requires_grad=True)
    gradients = [torch.autograd.grad(build(chunk=chunk)(x).square().sum(), x)[0] for chunk in (0, 4)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)


def test_dropped_weights_drop_again_in_the_gradient():
    attention = build(chunk=4, dropout=0.5).train()
    x = torch.randn(2, 7, DIM, requires_grad=True)
    torch.manual_seed(3)
    attention(x).sum().backward()
    step, direction = 1e-3, torch.randn_like(x)
    sides = []
    for sign in (1, -1):
        torch.manual_seed(3)
        sides.append(attention(x.detach() + sign * step * direction).sum())
    assert (x.grad * direction).sum().item() == pytest.approx(((sides[0] - sides[1]) / (2 * step)).item(), rel=0.05)


def test_a_vit_trains_with_it():
    attention = partial(Cosine, qkv_bias=True, scale=10.0, max_scale=100.0, chunk=20)
    model = tiny_vit(attention=attention).train()
    model(torch.randn(4, 3, 16, 16)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.0}, "above 0 and at most"),
        ({"scale": 200.0}, "use model.attention.scale=10"),
        ({"chunk": -1}, "0 "),
    ],
)
def test_errors_say_what_to_type(options, message):
    with pytest.raises(ConfigError, match=message):
        build(**options)
