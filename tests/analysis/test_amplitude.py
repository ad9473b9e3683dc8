"""Amplitudes are those of the blocks' outputs, and grow by what a block adds."""

import pytest
import torch
from subjects import subject
from tiny import tiny_vit
from torch import nn

from vitexp.analysis.amplitude import Amplitude
from vitexp.errors import ConfigError


def test_equal_to_the_outputs_themselves() -> None:
    model = tiny_vit(depth=3).eval()
    looked = subject(model, count=4)
    measured = Amplitude().measure(looked)
    with torch.no_grad():
        x = model.embed(looked.images)
        for index, block in enumerate(model.blocks):
            x = block(x)
            assert float(measured.variance[index]) == pytest.approx(float(x.var(-1, unbiased=False).mean()), rel=1e-5)
            assert float(measured.absolute[index]) == pytest.approx(float(x.abs().mean()), rel=1e-5)
    assert measured.names == ["blocks.0", "blocks.1", "blocks.2"]


class Doubling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(*(nn.Conv2d(3, 3, 1, bias=False) for _ in range(3)))
        for stage in self.stages:
            stage.weight.data = 2 * torch.eye(3)[:, :, None, None]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.stages(images)


def test_stages_of_a_pyramid_and_the_ratio() -> None:
    analysis = Amplitude()
    values = analysis.summary(analysis.measure(subject(Doubling())))
    assert values["variance_max_over_min"] == pytest.approx(16.0, rel=1e-5)
    assert values["absolute_max_over_min"] == pytest.approx(4.0, rel=1e-5)


def test_without_blocks_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no blocks and no stages; it needs"):
        Amplitude().measure(subject(nn.Conv2d(3, 3, 1)))
