"""Attention over normalised queries and keys is its equation, and does not see their length."""

import math

import torch
from torch.nn import functional as F

from vitexp.attention.qknorm import QkNorm

DIM, HEADS = 12, 3


def build(**options):
    torch.manual_seed(0)
    return QkNorm(DIM, HEADS, **{"qkv_bias": False, "eps": 1e-6, **options})


def test_equation_head_by_head():
    attention, x = build().double(), torch.randn(2, 5, DIM, dtype=torch.double)
    attention.q_norm.weight.data.uniform_(0.5, 2)
    attention.k_norm.weight.data.uniform_(0.5, 2)
    queries, keys, values = attention.qkv_projection(x).chunk(3, dim=-1)
    read = []
    for head in range(HEADS):
        part = slice(head * 4, head * 4 + 4)
        q, k = (
            F.layer_norm(each[..., part], (4,), eps=1e-6) * norm.weight
            for each, norm in ((queries, attention.q_norm), (keys, attention.k_norm))
        )
        read.append((q @ k.mT / math.sqrt(4)).softmax(-1) @ values[..., part])
    torch.testing.assert_close(attention(x), attention.out(torch.cat(read, dim=-1)))


def test_the_length_of_queries_and_keys_is_not_seen():
    attention, x = build(), torch.randn(2, 5, DIM)
    before = attention(x)
    with torch.no_grad():
        attention.qkv_projection.weight[: 2 * DIM] *= 50
    torch.testing.assert_close(attention(x), before, atol=1e-4, rtol=1e-4)


def test_no_bias_but_that_of_the_output():
    assert [name for name, _ in build().named_parameters() if name.endswith("bias")] == ["out.bias"]
    assert build(qkv_bias=True).qkv_projection.bias is not None


def test_dropout_only_in_training():
    attention, x = build(dropout=0.5), torch.randn(2, 7, DIM)
    assert not torch.equal(attention.train()(x), attention(x))
    assert torch.equal(attention.eval()(x), attention(x))
