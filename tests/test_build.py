"""What is switched outside the model: precision, memory layout, compilation."""

import copy

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from vitexp.build import build_model, channels_last, lightning_precision, switches
from vitexp.config.compose import compose
from vitexp.errors import ConfigError


def settings(**trainer: object) -> DictConfig:
    return OmegaConf.create({"trainer": {"channels_last": "auto", **trainer}, "fuse": True, "compile": False})


@pytest.mark.parametrize(
    ("accelerator", "gpu", "bf16", "word"),
    [
        ("auto", True, True, "bf16-mixed"),
        ("auto", True, False, "16-mixed"),
        ("gpu", True, True, "bf16-mixed"),
        ("cpu", True, True, "32-true"),
        ("auto", False, False, "32-true"),
    ],
)
def test_auto_precision_is_what_the_device_has(accelerator: str, gpu: bool, bf16: bool, word: str, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    assert lightning_precision("auto", accelerator) == word


def test_a_precision_that_is_asked_for_is_kept_or_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [lightning_precision(word, "auto") for word in ("32", "64", "bf16", "16")] == [
        *("32-true", "64-true", "bf16-mixed", "16-mixed")
    ]
    with pytest.raises(ConfigError, match=r"precision=16 needs a GPU, and trainer\.accelerator=cpu has none"):
        lightning_precision("16", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert lightning_precision("bf16", "auto") == "bf16-mixed"
    with pytest.raises(ConfigError, match="use bf16 or 32"):
        lightning_precision("16", "auto")


def test_channels_last_as_asked_or_where_it_pays() -> None:
    normed, plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), nn.Sequential(nn.Conv2d(3, 4, 3))
    assert channels_last(settings(), normed)
    assert not channels_last(settings(), plain)
    plain.prefers_channels_last = True  # type: ignore[assignment]
    assert channels_last(settings(), plain)
    assert not channels_last(settings(channels_last=False), normed)
    assert channels_last(settings(channels_last=True), nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="use auto, true or false"):
        channels_last(settings(channels_last="maybe"), normed)


def test_switches_put_the_weights_into_that_layout() -> None:
    model = switches(settings(channels_last=True), nn.Sequential(nn.Conv2d(3, 4, 3)))
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    model = switches(settings(channels_last=False), nn.Sequential(nn.Conv2d(3, 4, 3)))
    assert model[0].weight.is_contiguous()


@pytest.mark.slow
def test_a_compiled_model_is_the_same_model() -> None:
    """The same names in its checkpoints, the same outputs and gradients."""
    torch.manual_seed(0)
    eager = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.Linear(4 * 36, 5))
    cfg = settings()
    cfg.compile = True
    compiled = switches(cfg, copy.deepcopy(eager))
    images = torch.randn(2, 3, 8, 8)
    assert compiled.state_dict().keys() == eager.state_dict().keys()
    results = []
    for model in (eager, compiled):
        out = model(images)
        results.append([out, *torch.autograd.grad(out.square().sum(), list(model.parameters()))])
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)
    assert compiled._compiled_call_impl is not None


@pytest.mark.parametrize(("regime", "said"), [("head", True), ("memory_masked", True), ("full", False)])
def test_a_frozen_base_of_random_weights_is_told(regime: str, said: bool) -> None:
    notes: list[str] = []
    build_model(compose([f"regime={regime}", "model.pool=token"]), notes=notes)
    assert any("random weights; give checkpoint=" in note for note in notes) == said
