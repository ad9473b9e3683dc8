"""Maps are those that the values are read by, shown in order, and looking changes nothing."""

import pytest
import torch
from torch import nn

from tests.tiny import randomise, tiny_vit
from vitexp.analysis.maps import as_tokens, attentions, blocks, look
from vitexp.attention.base import DenseAttention
from vitexp.errors import ConfigError


def images() -> torch.Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_maps_read_the_values_that_the_model_reads() -> None:
    model = randomise(tiny_vit(depth=3))
    seen: dict[int, torch.Tensor] = {}
    look(model, images(), lambda block, maps: seen.update({block: maps["softmax"]}))
    assert list(seen) == [0, 1, 2]
    model.eval()
    x = model.embed(images())
    for block, weights in zip(model.blocks, seen.values(), strict=True):
        _, _, v = block.attention.qkv(block.norm1(x))
        read = block.attention.out((weights @ v).transpose(1, 2).flatten(2))
        torch.testing.assert_close(read, block.attention(block.norm1(x)), atol=1e-5, rtol=1e-5)
        x = block(x)


def test_looking_changes_nothing() -> None:
    model = tiny_vit(dropout=0.1)
    model.blocks[0].eval()
    modes = [module.training for module in model.modules()]
    with torch.no_grad():
        before = model.eval()(images())
    for module, training in zip(model.modules(), modes, strict=True):
        module.training = training
    shown = look(model, images(), lambda block, maps: None, lambda block, output: None)
    assert torch.equal(shown, before)
    assert [module.training for module in model.modules()] == modes
    assert not any("attend" in module.__dict__ for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_an_error_inside_leaves_nothing_behind() -> None:
    model = tiny_vit()

    def fails(block: int, maps: dict[str, torch.Tensor]) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        look(model, images(), fails)
    assert not any("attend" in module.__dict__ for module in model.modules())
    assert model.training


def test_outputs_are_the_blocks() -> None:
    model = tiny_vit(depth=2)
    seen: dict[int, torch.Tensor] = {}
    look(model, images(), None, seen.__setitem__)
    with torch.no_grad():
        x = model.eval().embed(images())
        for index, block in enumerate(model.blocks):
            x = block(x)
            assert torch.equal(seen[index], x)


def test_maps_of_convolutional_blocks_become_tokens() -> None:
    conv, dense = nn.Sequential(nn.Conv2d(4, 4, 1)), nn.Linear(4, 4)
    output = torch.arange(2 * 4 * 3 * 5.0).reshape(2, 4, 3, 5)
    assert torch.equal(as_tokens(conv, output)[:, 7], output[:, :, 1, 2])
    last = output.permute(0, 2, 3, 1)
    assert torch.equal(as_tokens(dense, last), as_tokens(conv, output))


def test_a_model_without_maps_or_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no attention of this Linear has one; .* use a model with attention="):
        attentions(nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="no blocks and no stages"):
        blocks(nn.Linear(2, 2))


class _Whole(nn.Module):
    """An attention that is no DenseAttention and offers its map from its input."""

    def maps(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).mT @ x.flatten(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


def test_attentions_of_another_build_show_their_map_too() -> None:
    seen: list[torch.Tensor] = []
    model = nn.Sequential(_Whole(), _Whole())
    look(model, images(), lambda block, maps: seen.append(maps["softmax"]))
    assert [tuple(weights.shape) for weights in seen] == [(2, 256, 256)] * 2
    assert not isinstance(model[0], DenseAttention)
