"""Training a head on cached features gives what training it on the images gives."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vitexp.callback.embed import embed
from vitexp.cli import main
from vitexp.config import compose
from vitexp.regime.head import head
from vitexp.run import find
from vitexp.task.classify import Classify

SMALL = ["model=vit_nano", "data=fake", "data.sizes=[48,16,32]", "bs=16", "epochs=2", "logger=none", "quiet=true"]


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitexp.fit._draw", lambda *parts: None)


def test_the_same_result_as_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs, seen = [], []
    step = Classify.training_step
    monkeypatch.setattr(
        Classify, "training_step", lambda self, batch, index: (seen.append(batch[0].ndim), step(self, batch, index))[1]
    )
    for cache in ("true", "false"):
        assert main([*SMALL, "regime=head", f"regime.cache={cache}", "augment=none", "lr=0.1"]) == 0
        run = find("last", Path("outputs"))
        runs.append((run.record["metrics"], load_file(run.path / "weights.safetensors")))
    (cached, weights), (plain, expected) = runs
    assert seen == [2] * 6 + [4] * 6
    assert weights.keys() == expected.keys()
    assert expected["head.weight"].abs().max() > 0.05
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, atol=1e-4, rtol=1e-4)
    for name in ("val/top1", "test/top1", "train/top1"):
        assert cached[name] == plain[name]


def test_random_augmentation_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "regime=head", "regime.cache=true"]) == 2
    assert "augment.geometry=crop_flip" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_features_are_what_the_head_reads() -> None:
    from vitexp import build

    model = head(build.build_model(compose(SMALL)), num_classes=10, cache=True).train()
    images, labels = torch.randn(3, 3, 32, 32), torch.arange(3)
    features, found = embed(model, [(images, labels), (images, labels)])
    assert features.shape == (6, 64)
    assert torch.equal(found, torch.cat([labels, labels]))
    assert model.training
    torch.testing.assert_close(model(features[:3]), model(images))
