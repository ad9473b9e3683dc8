"""Gradients by block are those of an ordinary backward pass, and measuring leaves no trace."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.analysis.subjects import subject
from tests.tiny import randomise, tiny_vit
from vitexp.analysis.gradients import block_gradients


def test_equal_to_backward_over_the_whole_batch() -> None:
    model = randomise(tiny_vit(depth=3)).eval()
    looked = subject(model, count=5)
    lengths, loss = block_gradients(model, looked.images, looked.labels)
    expected = F.cross_entropy(model(looked.images), looked.labels)
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    assert lengths.dtype == torch.float64
    for block, length in zip(model.blocks, lengths.tolist(), strict=True):
        flat = torch.cat([parameter.grad.flatten() for parameter in block.parameters()])
        assert length == pytest.approx(float(flat.norm()), rel=1e-4)


def test_nothing_is_left_behind() -> None:
    model = tiny_vit(depth=2).train()
    model.blocks[0].requires_grad_(False)
    before = [parameter.requires_grad for parameter in model.parameters()]
    looked = subject(model)
    lengths, _ = block_gradients(model, looked.images, looked.labels)
    assert (lengths > 0).all(), "frozen parameters count"
    assert [parameter.requires_grad for parameter in model.parameters()] == before
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training


class Closed(nn.Module):
    """Its first block runs without a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 5)])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x = self.blocks[0](images.mean((2, 3)))
        return self.blocks[1](x)


def test_a_block_that_the_loss_does_not_reach_has_none() -> None:
    looked = subject(Closed())
    lengths, _ = block_gradients(looked.model, looked.images, looked.labels)
    assert lengths.isnan().tolist() == [True, False]
    lengths, loss = block_gradients(_Still(), looked.images, looked.labels)
    assert lengths.isnan().all()
    assert loss > 0


class _Still(Closed):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return super().forward(images)
