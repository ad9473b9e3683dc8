"""Softmax attention is its equation."""

import math

import torch

from vitexp.attention.softmax import Softmax

DIM, HEADS = 12, 3


def build(**options):
    torch.manual_seed(0)
    return Softmax(DIM, HEADS, **{"qkv_bias": True, "temperature": 1.0, **options})


def test_equation_head_by_head():
    attention, x = build().double(), torch.randn(2, 5, DIM, dtype=torch.double)
    queries, keys, values = attention.qkv_projection(x).chunk(3, dim=-1)
    read = []
    for head in range(HEADS):
        part = slice(head * 4, head * 4 + 4)
        scores = queries[..., part] @ keys[..., part].mT / math.sqrt(4)
        read.append(scores.softmax(-1) @ values[..., part])
    torch.testing.assert_close(attention(x), attention.out(torch.cat(read, dim=-1)))


def test_weights_are_distributions():
    attention = build()
    q, k, _ = attention.qkv(torch.randn(2, 7, DIM))
    weights = attention.weights(q, k)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, HEADS, 7))


def test_temperature_flattens():
    x = torch.randn(1, 7, DIM)
    cold, warm = build(temperature=0.1), build(temperature=10.0)
    peak = [a.weights(*a.qkv(x)[:2]).amax(-1).mean() for a in (cold, warm)]
    assert peak[0] > peak[1]
    q, k, v = warm.qkv(x)
    torch.testing.assert_close(warm.attend(q, k, v), warm.weights(q, k) @ v)


def test_dropout_only_in_training():
    attention, x = build(dropout=0.5), torch.randn(2, 7, DIM)
    assert not torch.equal(attention.train()(x), attention(x))
    assert torch.equal(attention.eval()(x), attention(x))


def test_without_qkv_bias():
    attention = build(qkv_bias=False)
    assert attention.qkv_projection.bias is None
    x, context = torch.randn(2, 4, DIM), torch.randn(1, 2, DIM)
    assert attention(x, context=context).shape == x.shape
