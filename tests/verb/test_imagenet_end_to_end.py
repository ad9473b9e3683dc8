"""`vitexp evaluate` on ImageNet photographs: the logits of timm's own preprocessing and model, image by image."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from vitexp.cli import main
from vitexp.task.classify import Classify


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """Timm's vit_small_patch16_224 with random weights, and the file they are saved in."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224").eval()
    file = tmp_path_factory.mktemp("timm") / "vit_small.safetensors"
    save_file(model.state_dict(), str(file))
    return model, file


@pytest.fixture
def evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tensor]:
    """Run `vitexp evaluate` and return the logits (N, 1000) that its metrics were computed from."""
    seen: list[Tensor] = []
    update = Classify._update

    def spy(self: Classify, metrics: Any, batch: Any) -> None:
        update(self, metrics, batch)
        assert self.logits is not None
        seen.append(self.logits.clone())

    def run(*words: str) -> Tensor:
        assert main(["evaluate", "data=imagenet", "bs=8", "data.num_workers=0", *words]) == 0
        return torch.cat(seen)

    monkeypatch.setattr(Classify, "_update", spy)
    monkeypatch.chdir(tmp_path)
    return run


def expected(model: Any, files: list[Path]) -> Tensor:
    """What timm makes of the files, one at a time."""
    from timm.data import create_transform, resolve_model_data_config

    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    with torch.inference_mode():
        return torch.cat([model(transform(Image.open(file).convert("RGB")).unsqueeze(0)) for file in files])


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.1, "random weights that tell photographs apart"
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))


def test_eight_photographs(peer: Any, evaluated: Any, data_root: Callable[[str], Path], tmp_path: Path) -> None:
    """Of all shapes, in the flat layout: a folder of files and a text file with their labels."""
    model, weights = peer
    photographs = sorted((data_root("imagenet-sample") / "imagenet-sample" / "val").rglob("*.*"))[::125]
    flat = tmp_path / "set" / "val"
    flat.mkdir(parents=True)
    for file in photographs:
        (flat / file.name).symlink_to(file.resolve())
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"{file.name} {7 * index}\n" for index, file in enumerate(photographs)))
    ours = evaluated(
        "model=vit_s16", f"checkpoint={weights}", f"data.root={flat.parent}", f"data.val_labels={labels}", "quiet=true"
    )
    assert_same(ours, expected(model, sorted(photographs, key=lambda file: file.stem)))


@pytest.mark.slow
def test_the_thousand_photographs(peer: Any, evaluated: Any, data_root: Callable[[str], Path]) -> None:
    model, weights = peer
    root = data_root("imagenet-sample") / "imagenet-sample"
    ours = evaluated("model=vit_s16", f"checkpoint={weights}", f"data.root={root}", "quiet=true")
    assert_same(ours, expected(model, sorted((root / "val").rglob("*.*"))))


@pytest.mark.slow
def test_the_thousand_photographs_by_swin_v2(evaluated: Any, data_root: Callable[[str], Path], tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("swinv2_tiny_window8_256")
    for name, parameter in model.named_parameters():  # residual branches start at zero: without this nothing is seen
        if parameter.ndim == 1 and "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    weights = tmp_path / "swinv2.safetensors"
    save_file(model.eval().state_dict(), str(weights))
    root = data_root("imagenet-sample") / "imagenet-sample"
    ours = evaluated("model=swinv2", f"checkpoint={weights}", f"data.root={root}", "quiet=true")
    assert_same(ours, expected(model, sorted((root / "val").rglob("*.*"))))
