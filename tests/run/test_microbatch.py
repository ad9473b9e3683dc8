"""`bs=auto`: the global batch stays, the number of micro-batches is found from what a step keeps and what is free."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.commands import command
from vitexp import build
from vitexp.cli import main
from vitexp.config.compose import compose
from vitexp.errors import ConfigError, ResourceError
from vitexp.run import microbatch
from vitexp.run.folder import find
from vitexp.run.microbatch import find_accumulate, keeping, kept_bytes
from vitexp.verb.train import require_findable

SMALL = [
    "model=vit_nano",
    "model.depth=1",
    "data=fake",
    "bs=32",
    "epochs=1",
    "logger=none",
    "seed=3",
    "data.sizes=[64,32,32]",
]
CPU = torch.device("cpu")
FAMILIES = ("vit_nano", "efficientvit_m0", "swinv2", "mobilevit_xxs")


def _really_kept(model: torch.nn.Module, images: Tensor) -> int:
    model.train()
    with keeping([*model.parameters(), *model.buffers()]) as kept:
        model(images)
    return kept.num_bytes


def test_each_storage_counts_once_and_what_is_owned_not_at_all() -> None:
    """X * x keeps x twice, the product with the weight both; the weight was there before."""
    x, weight = torch.randn(10, requires_grad=True), torch.randn(10, requires_grad=True)
    with keeping([weight]) as kept:
        (x * x)[:5] * weight[:5]
    assert kept.num_bytes == 2 * 10 * 4


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_step_keeps_is_foreseen(name: str) -> None:
    cfg = compose([f"model={name}", "data=cifar100"])
    model = build.build_model(cfg).eval()
    before = [buffer.clone() for buffer in model.buffers()]
    foreseen = kept_bytes(model, (4, 3, 32, 32))
    assert not any(module.training for module in model.modules()), "the model is left as it was"
    assert all(torch.equal(old, new) for old, new in zip(before, model.buffers(), strict=True))
    # The plain attention of the meta device keeps a little more than the fused one.
    assert 0.97 <= foreseen / _really_kept(model, torch.randn(4, 3, 32, 32)) <= 1.25
    assert kept_bytes(model, (8, 3, 32, 32)) == pytest.approx(2 * foreseen, rel=0.1)


def test_as_few_micro_batches_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = compose(SMALL)
    model = build.build_model(cfg)
    shape = (cfg.data.channels, cfg.data.image_size, cfg.data.image_size)
    trained = 4 * 3 * sum(p.numel() for p in model.parameters())
    for size, expected in ((32, 1), (16, 2), (8, 4), (1, 32)):
        free = (trained + 1.3 * kept_bytes(model, (size, *shape))) / 0.8
        monkeypatch.setattr(microbatch, "free_on", lambda device, free=free: free + 1)
        assert find_accumulate(model, shape, batch=cfg.data.batch_size, averaged=False, device=CPU) == expected
    monkeypatch.setattr(microbatch, "free_on", lambda device: trained)
    with pytest.raises(ResourceError, match="lower size="):
        find_accumulate(model, shape, batch=cfg.data.batch_size, averaged=False, device=CPU)


def test_a_run_keeps_its_global_batch_and_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vitexp.verb.train.find_accumulate", lambda model, shape, **settings: 4)
    given = [word for word in SMALL if not word.startswith("bs=")]
    assert main([*given, "bs=auto", "epochs=2", "outputs=found"]) == 0
    whole = find("last", tmp_path / "found").config()
    assert (whole.data.batch_size, whole.trainer.accumulate) == (compose(given).data.batch_size, 4)
    assert "4 accumulated" in capsys.readouterr().out
    assert main([*given, "trainer.accumulate=4", "epochs=2", "outputs=given", "quiet=true"]) == 0
    files = [find("last", tmp_path / name).path / "weights.safetensors" for name in ("found", "given")]
    first, second = map(load_file, files)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert main(["resume", "bs=auto", "outputs=found", "quiet=true"]) == 0, "the number found stays with the run"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trainer.devices=2", "trainer.accelerator=cpu"], "several"),
        (["model=navit_nano", "data.sampler=packed"], "sampler=packed"),
    ],
)
def test_what_cannot_be_foreseen_is_said(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        require_findable(compose([*SMALL[2:], "bs=auto", *words]))


def test_only_training_has_micro_batches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "run=last", "bs=auto"]) == 2
    assert "give a number" in capsys.readouterr().err
    assert command("bs=auto").overrides == ["trainer.accumulate=auto"]
