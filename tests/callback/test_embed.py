"""Training a head, or a masked memory, on what was embedded once gives what training it on the images gives."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vitexp.callback.embed import embed
from vitexp.cli import main
from vitexp.config.compose import compose
from vitexp.errors import ResourceError
from vitexp.regime.head import head
from vitexp.run.folder import find
from vitexp.task.classify import Classify

SMALL = ["model=vit_nano", "data=fake", "data.sizes=[48,16,32]", "bs=16", "epochs=2", "logger=none", "quiet=true"]
SMALL += ["model.pool=token", "optimizer=sgd", "lr=0.1"]  # Adam turns rounding near zero into steps


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitexp.run.fit._draw", lambda *parts: None)


@pytest.mark.parametrize(
    ("regime", "file"), [("head", "weights"), pytest.param("memory_masked", "adapter", marks=pytest.mark.slow)]
)
def test_the_same_result_as_without(regime: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs, seen = [], []
    step = Classify.training_step
    monkeypatch.setattr(
        Classify, "training_step", lambda self, batch, index: (seen.append(batch[0].ndim), step(self, batch, index))[1]
    )
    for cache in ("true", "false"):
        assert main([*SMALL, f"regime={regime}", f"regime.cache={cache}", "augment=none"]) == 0
        run = find("last", Path("outputs"))
        runs.append((run.record["metrics"], load_file(run.path / f"{file}.safetensors")))
    (cached, weights), (plain, expected) = runs
    assert seen == [2] * 6 + [4] * 6
    assert weights.keys() == expected.keys()
    assert max(value.abs().max() for name, value in expected.items() if name.endswith("head.weight")) > 0.02
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, atol=1e-5, rtol=1e-5)
    for name in ("val/top1", "test/top1", "train/top1"):
        assert cached[name] == plain[name]


def test_random_augmentation_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "regime=memory_masked", "regime.cache=true"]) == 2
    assert "augment.geometry=crop_flip" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit_into_memory_is_told_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """3 images of 1 kB, and 7 more that follow: 10 kB."""
    model, batches = torch.nn.Flatten(), [(torch.zeros(3, 256), torch.zeros(3))]
    model.embed_frozen = model.forward
    monkeypatch.setattr("vitexp.callback.embed.free_on", lambda device: 11_500)
    assert embed(model, batches, count=3, room_for=10)[0].shape == (3, 256)
    monkeypatch.setattr("vitexp.callback.embed.free_on", lambda device: 11_300)
    with pytest.raises(ResourceError, match=r"keeps 1.0 kB for each of 10 images.*lower size=.*regime.cache=false"):
        embed(model, batches, count=3, room_for=10)


def test_features_are_what_the_head_reads() -> None:
    from vitexp import build

    model = head(build.build_model(compose(SMALL)), num_classes=10, cache=True).train()
    images, labels = torch.randn(3, 3, 32, 32), torch.arange(3)
    features, found = embed(model, [(images, labels), (images, labels)], count=6, room_for=6)
    assert features.shape == (6, 64)
    assert torch.equal(found, torch.cat([labels, labels]))
    assert model.training
    torch.testing.assert_close(model(features[:3]), model(images))
