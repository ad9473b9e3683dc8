"""What `vitexp export` writes, other tools read: timm strictly, onnxruntime to the same logits at any batch size."""

from pathlib import Path

import onnxruntime
import pytest
import timm
import torch
from safetensors.torch import load_file

import vitexp
from vitexp.cli import main
from vitexp.errors import ConfigError

MODEL = ["model=vit_nano", "data=fake", "data.num_classes=7", "size=32", "quiet=true"]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A small ViT of timm's architecture, saved in our names."""
    cfg = vitexp.compose([*MODEL, "model=vit_ti16", "model.depth=2"])
    file = tmp_path / "ours.pth"
    torch.save(vitexp.build_model(cfg).state_dict(), file)
    return file


def run(file: Path, *words: str) -> int:
    return main(["export", *MODEL, f"checkpoint={file}", *words])


def test_timm_loads_the_file_strictly(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "timm.safetensors"
    geometry = ["model=vit_ti16", "model.depth=2"]
    assert run(weights, *geometry, "to=timm", f"file={out}", "quiet=false") == 0
    assert "this vit_ti16 is not the published one" in capsys.readouterr().out
    peer = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=4, depth=2, num_classes=7).eval()
    peer.load_state_dict(load_file(out))
    ours = vitexp.build_model(vitexp.compose([*MODEL, *geometry, f"checkpoint={out}"])).eval()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images), peer(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "warned"), [(32, True), (224, False)])
def test_a_stem_of_other_strides_than_timms_is_told(size: int, warned: bool, tmp_path: Path, capsys) -> None:
    """The tensors fit timm's model all the same, so nothing else would say that it computes something else."""
    words = ["model=efficientvit_m0", "data=fake", f"size={size}"]
    file, out = tmp_path / "ours.pth", tmp_path / "timm.safetensors"
    torch.save(vitexp.build_model(vitexp.compose(words)).state_dict(), file)
    assert main(["export", *words, f"checkpoint={file}", "to=timm", f"file={out}"]) == 0
    said = capsys.readouterr().out
    assert ("strides 4, 8, 16, in timm's model 16, 32, 64" in said) == warned
    assert "published" not in said


def test_our_own_file_keeps_what_the_weights_said_of_themselves(weights: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    assert run(weights, "model=vit_ti16", "model.depth=2", f"file={first}") == 0
    assert run(first, "model=vit_ti16", "model.depth=2", f"file={second}") == 0
    before, after = load_file(first), load_file(second)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_onnx_computes_the_same_logits_at_any_batch_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, out = tmp_path / "nano.pth", tmp_path / "nano.onnx"
    model = vitexp.build_model(vitexp.compose(MODEL)).eval()
    torch.save(model.state_dict(), weights)
    assert main(["export", *MODEL, f"checkpoint={weights}", "to=onnx", f"file={out}", "quiet=false"]) == 0
    assert "onnxruntime's logits differ by" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(out))
    assert session.get_modelmeta().custom_metadata_map["model"] == "vit_nano"
    for batch in (1, 5):
        images = torch.randn(batch, 3, 32, 32)
        logits = session.run(None, {"images": images.numpy()})[0]
        torch.testing.assert_close(torch.from_numpy(logits), model(images).detach(), rtol=1e-4, atol=1e-5)


FAMILIES = {
    "hybrid": ["model=vit_rti_16", "model.depth=1"],
    "deepvit": ["model=deepvit_s", "model.dim=24", "model.depth=4", "model.layout.plain_blocks=2"],
    "swinv2": ["model=swinv2", "model.dim=12", "model.depths=[2,2]", "model.num_heads=[1,2]"],
    "efficientvit": ["model=efficientvit_m0", "model.dims=[16,32,32]"],
    "mobilevit": ["model=mobilevit_xxs"],
    "mobilevitv2": ["model=mobilevitv2_050"],
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_onnx_computes_the_same_logits_in_each_family(family: str, tmp_path: Path) -> None:
    words, weights, out = [*MODEL, *FAMILIES[family], "data.channels=3"], tmp_path / "tiny.pth", tmp_path / "tiny.onnx"
    model = vitexp.build_model(vitexp.compose(words)).eval()
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0)
        elif tensor.is_floating_point():
            tensor.add_(0.05 * torch.randn_like(tensor))
    torch.save(model.state_dict(), weights)
    assert main(["export", *words, f"checkpoint={weights}", "to=onnx", f"file={out}"]) == 0
    session = onnxruntime.InferenceSession(str(out))
    for batch in (1, 3):
        images = torch.randn(batch, 3, 32, 32)
        expected = model(images).detach()
        assert expected.std() > 1e-3
        logits = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
        assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()


def test_mistakes_name_the_way_out() -> None:
    with pytest.raises(ConfigError, match="use safetensors, timm or onnx"):
        vitexp.compose(["to=keras"])
    assert main(["export", *MODEL]) == 2
