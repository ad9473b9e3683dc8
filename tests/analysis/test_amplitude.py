"""Amplitudes are those of the blocks' outputs, and grow by what a block adds."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.analysis.subjects import subject
from tests.tiny import tiny_swinv2, tiny_vit
from vitexp.analysis.amplitude import Amplitude, Amplitudes
from vitexp.attention.softmax import Softmax
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
    with torch.no_grad():
        loss = F.cross_entropy(model(looked.images), looked.labels)
    assert measured.loss == pytest.approx(float(loss), rel=1e-5)


class Doubling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(*(nn.Conv2d(3, 3, 1, bias=False) for _ in range(3)))
        for stage in self.stages:
            stage.weight.data = 2 * torch.eye(3)[:, :, None, None]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.stages(images).mean((2, 3))


def test_stages_of_a_pyramid_and_the_ratio() -> None:
    analysis = Amplitude()
    values = analysis.summary(analysis.measure(subject(Doubling())))
    assert values["variance_max_over_min"] == pytest.approx(16.0, rel=1e-5)
    assert values["absolute_max_over_min"] == pytest.approx(4.0, rel=1e-5)
    assert values["last_variance"] == pytest.approx(16 * values["first_variance"], rel=1e-5)


def test_only_blocks_that_the_loss_reaches_count_for_the_gradient() -> None:
    analysis, values = Amplitude(), {"variance": torch.tensor([1.0, 2, 3]), "absolute": torch.ones(3), "loss": 1.0}
    for gradient, ratio in ((torch.tensor([torch.nan, 2.0, 6.0]), 3.0), (torch.full((3,), torch.nan), None)):
        measured = Amplitudes(names=["a", "b", "c"], gradient=gradient, **values)
        assert analysis.summary(measured).get("gradient_max_over_min") == ratio


def test_images_are_summed_in_double_precision() -> None:
    measured = Amplitude().measure(subject(tiny_vit()))
    assert measured.variance.dtype == measured.absolute.dtype == measured.gradient.dtype == torch.float64


def test_without_blocks_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no blocks and no stages; it needs"):
        Amplitude().measure(subject(nn.Conv2d(3, 3, 1)))


def test_norms_and_attentions_stand_beside_each_other(tmp_path: Path) -> None:
    """The paper's figure: pre-norm with plain attention and residual post-norm with cosine, on the same images."""
    analysis, measured = Amplitude(), {}
    plain = partial(Softmax, qkv_bias=True, temperature=1.0)
    for norm, word, attention in (("pre", "softmax", plain), ("res_post", "cosine", None)):
        model = tiny_swinv2(norm=norm, attention=attention, depths=(1, 2), num_heads=(2, 2))
        measured[f"{norm}, {word}"] = analysis.measure(subject(model, count=2, size=32))
    pre, res_post = (one.variance for one in measured.values())
    assert res_post[1] == res_post[2], "at the start each such block is the identity"
    assert pre[1] != pre[2]
    analysis.draw(measured, tmp_path / "amplitude.png", "swin, 2 images")
    drawn = (tmp_path / "amplitude.svg").read_text()
    assert all(f"{name}, loss" in drawn for name in measured)
    rows = analysis.rows(measured["pre, softmax"])
    assert list(rows[0]) == ["block", "name", "variance", "absolute", "gradient", "loss"]
    assert len(rows) == 3
