"""Cascaded group attention is its equations, head after head."""

from functools import partial

import pytest
import torch
from torch import nn

from tests.tiny import tiny_vit
from vitexp.attention.cascaded import Cascaded, absolute_offsets, to_map, to_tokens
from vitexp.errors import ConfigError

DIM, HEADS, GRID, KEY_DIM = 24, 3, (3, 4), 16


def build(**options):
    """One with statistics, norms and biases that a fresh one does not have."""
    torch.manual_seed(0)
    shipped = {"grid": GRID, "key_dim": KEY_DIM, "kernels": [5, 3, 1], "cascade": True}
    attention = Cascaded(DIM, HEADS, **shipped | options)
    nn.init.normal_(attention.bias_table)
    for norm in (m for m in attention.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return attention.eval()


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randn(2, GRID[0] * GRID[1], DIM)


def plain(attention, x):
    """The equations on channels-first maps, the biases looked up cell by cell."""
    (h, w), read, reads = attention.grid, 0, []
    table = attention.bias_table.detach()
    cells = [(row, column) for row in range(h) for column in range(w)]
    for head, part in enumerate(x.chunk(HEADS, dim=-1)):
        image = (part + read).transpose(1, 2).reshape(len(x), -1, h, w).contiguous()
        q, k, v = attention.qkv[head](image).split([KEY_DIM, KEY_DIM, DIM // HEADS], dim=1)
        q = attention.query[head](q)
        scores = torch.einsum("bchw,bcij->bhwij", q, k).reshape(len(x), h * w, h * w) / KEY_DIM**0.5
        bias = [[table[head, abs(a - i) * w + abs(b - j)] for i, j in cells] for a, b in cells]
        weights = (scores + torch.tensor(bias, dtype=x.dtype)).softmax(-1)
        read = weights @ v.flatten(2).transpose(1, 2)
        reads.append(read)
        read = read if attention.cascade else 0
    image = torch.cat(reads, -1).relu().transpose(1, 2).reshape(len(x), DIM, h, w)
    return attention.out(image).flatten(2).transpose(1, 2)


@pytest.mark.parametrize("cascade", [True, False])
def test_equations_head_by_head(x, cascade):
    attention = build(cascade=cascade).double()
    torch.testing.assert_close(attention(x.double()), plain(attention, x.double()))


@pytest.mark.parametrize("cascade", [True, False])
def test_a_head_sees_its_own_channels_and_by_cascade_those_before(x, cascade):
    attention = build(cascade=cascade)
    x.requires_grad_()
    for head, (_, values) in enumerate(attention.heads(x)):
        (gradient,) = torch.autograd.grad(values.square().sum(), x, retain_graph=True)
        reached = [bool(part.abs().sum() > 0) for part in gradient.chunk(HEADS, dim=-1)]
        assert reached == [part <= head if cascade else part == head for part in range(HEADS)]


def test_biases_depend_on_the_absolute_offset():
    offsets = absolute_offsets((3, 4))
    assert torch.equal(offsets, offsets.T)
    for a in range(12):
        for b in range(12):
            assert offsets[a, b] == abs(a // 4 - b // 4) * 4 + abs(a % 4 - b % 4)


def test_biases_changed_in_evaluation_change_the_output(x):
    attention = build()
    before = attention(x)
    with torch.no_grad():
        attention.bias_table.normal_()
    assert (attention(x) - before).abs().max() > 1e-3


def test_maps_are_the_distributions_that_values_are_read_by(x):
    attention = build()
    maps = attention.maps(x)
    assert maps.shape == (2, HEADS, 12, 12)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, HEADS, 12))
    first = to_tokens(attention.qkv[0](to_map(x[..., :8], GRID)))[..., 2 * KEY_DIM :]
    torch.testing.assert_close(maps[:, 0] @ first, next(attention.heads(x))[1])


def test_starts_as_nothing(x):
    attention = Cascaded(DIM, HEADS, grid=GRID, key_dim=KEY_DIM, kernels=[3], cascade=True).train()
    assert attention(x).abs().max() == 0


def test_a_map_and_its_tokens_are_one_memory(x):
    image = to_map(x, GRID)
    assert image.shape == (2, DIM, *GRID)
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert image.data_ptr() == x.data_ptr() == to_tokens(image).data_ptr()
    assert to_tokens(image).is_contiguous()


def test_folding_leaves_no_norm(x):
    attention = build()
    expected = attention(x)
    for brick in [*attention.qkv, *attention.query, attention.out]:
        brick.fuse()
    assert not [m for m in attention.modules() if isinstance(m, nn.BatchNorm2d)]
    torch.testing.assert_close(attention(x), expected, rtol=1e-5, atol=1e-5)


def test_the_last_kernel_serves_all_heads_that_follow():
    assert [brick.conv.kernel_size[0] for brick in build(kernels=[7, 5]).query] == [7, 5, 5]
    assert [brick.conv.kernel_size[0] for brick in build(kernels=[7, 5, 3, 3]).query] == [7, 5, 3]


def test_works_in_a_vit_with_mean_pooling():
    factory = partial(Cascaded, key_dim=KEY_DIM, kernels=[3], cascade=True)
    model = tiny_vit(pool="mean", attention=factory, image_size=(16, 24)).train()
    assert model.blocks[0].attention.grid == (4, 6)
    assert model(torch.randn(2, 3, 16, 24)).shape == (2, 5)
    with pytest.raises(ConfigError, match=r"use model\.pool=mean, or attention=softmax"):
        tiny_vit(pool="token", attention=factory)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": None}, "needs tokens that are the cells of a map; use attention=softmax"),
        ({"kernels": [4]}, r"each must be odd.*use \[7,5,3,3\]"),
        ({"kernels": []}, "there must be one at least"),
    ],
)
def test_errors_say_what_to_type(options, message):
    with pytest.raises(ConfigError, match=message):
        build(**options)
