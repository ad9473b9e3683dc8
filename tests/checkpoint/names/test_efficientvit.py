"""Names of EfficientViT tensors, against timm's code and the authors' naming as the fact sheet has it."""

import re

import pytest
import torch

from tests.tiny_efficientvit import tiny_efficientvit, trained
from vitexp.build import make
from vitexp.checkpoint.load import export_names, load_weights
from vitexp.config.compose import compose

TINY = {"embed_dim": (16, 24, 32), "num_heads": (2, 3, 2), "kernels": (5, 3, 3), "num_classes": 5}
SIZES = ["m0", "m1", "m2", "m3", "m4", "m5"]


def timm_tiny():
    from timm.models.efficientvit_msra import EfficientVitMsra

    torch.manual_seed(1)
    return trained(EfficientVitMsra(img_size=224, depth=(1, 1, 2), **TINY), seed=1)


def ours_tiny(image_size=224):
    return tiny_efficientvit(image_size=image_size, stem_stride=16, window_size=7).eval()


def official_names(tensors):
    """Timm's names as the authors'."""
    named = {}
    for name, tensor in tensors.items():
        name = re.sub(r"^patch_embed\.conv(\d)\.", lambda m: f"patch_embed.{2 * int(m[1]) - 2}.", name)
        name = re.sub(r"^stages\.0\.blocks\.", "blocks1.", name)
        name = re.sub(r"^stages\.(\d)\.blocks\.(\d)", lambda m: f"blocks{int(m[1]) + 1}.{int(m[2]) + 3}", name)
        name = re.sub(r"^stages\.(\d)\.downsample\.", lambda m: f"blocks{int(m[1]) + 1}.", name)
        for index, part in enumerate(("res1", "patchmerge", "res2")):
            name = name.replace(f".{part}.", f".{index}.")
        name = name.replace("head.linear.", "head.l.").replace(".conv.", ".c.")
        named[name] = tensor
        if name.endswith(".attention_biases"):
            named[name.replace("attention_biases", "attention_bias_idxs")] = torch.zeros(3, 3, dtype=torch.long)
    return named


def relative(ours, theirs):
    assert theirs.std() > 0.01
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("image_size", [224, 256])
def test_timm(tmp_path, image_size):
    """At 256 the second map is 8 x 8 and its windows are filled up; biases stay."""
    reference, model = timm_tiny(), ours_tiny(image_size)
    torch.save(reference.state_dict(), tmp_path / "timm.pth")
    reference.set_input_size(image_size)
    assert load_weights(model, tmp_path / "timm.pth") == []
    images = torch.randn(2, 3, image_size, image_size)
    with torch.inference_mode():
        assert relative(model(images), reference.eval()(images)) <= 1e-5


def test_there_and_back_at_another_resolution(tmp_path):
    """Biases resized here, and timm at that resolution takes them strictly to the same logits."""
    reference, model = timm_tiny(), ours_tiny(320)
    torch.save({"state_dict": reference.state_dict()}, tmp_path / "timm.pth")
    assert load_weights(model, tmp_path / "timm.pth") == [
        f"stages.2.blocks.{index}.attention.bias_table: attention biases resized from 4x4 to 5x5 (bicubic)"
        for index in range(2)
    ]
    reference.set_input_size(320)
    reference.load_state_dict(export_names(model), strict=True)
    images = torch.randn(2, 3, 320, 320)
    with torch.inference_mode():
        assert relative(model(images), reference.eval()(images)) <= 1e-5


@pytest.mark.parametrize("old", [False, True])
def test_official(tmp_path, old):
    """Old files hold 1x1 convolutions as matrices; a distilled model has a second head."""
    reference, model = timm_tiny(), ours_tiny()
    tensors = official_names(reference.state_dict())
    assert {"patch_embed.6.c.weight", "blocks2.0.0.m.bn.weight", "blocks2.1.se.fc1.bias", "head.bn.weight"} <= set(
        tensors
    )
    assert {"blocks3.4.mixer.m.attn.qkvs.1.c.weight", "blocks3.3.mixer.m.attn.proj.1.bn.bias"} <= set(tensors)
    if old:
        tensors = {n: t[:, :, 0, 0] if t.ndim == 4 and t.shape[2:] == (1, 1) else t for n, t in tensors.items()}
        tensors["head_dist.bn.weight"] = torch.zeros(32)
    torch.save({"model": tensors}, tmp_path / "official.pth")
    dropped = ["head_dist.bn.weight: dropped, the model has no such layer (the authors)"] if old else []
    assert load_weights(model, tmp_path / "official.pth") == dropped
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        assert relative(model(images), reference(images)) <= 1e-5


def test_other_classes_take_the_norm_of_the_head(tmp_path):
    reference, model = timm_tiny(), tiny_efficientvit(image_size=224, stem_stride=16, window_size=7, num_classes=3)
    torch.save(reference.state_dict(), tmp_path / "timm.pth")
    (line,) = load_weights(model, tmp_path / "timm.pth")
    assert line.startswith("head.linear.weight, head.linear.bias: 5 classes in the file, 3 here")
    assert torch.equal(model.head.norm.running_mean, reference.head.bn.running_mean)


@pytest.mark.parametrize("size", ["m0", *(pytest.param(size, marks=pytest.mark.slow) for size in SIZES[1:])])
def test_published_sizes_equal_timm(size):
    import timm

    cfg = compose([f"model=efficientvit_{size}", "size=224", "data.channels=3"])
    cfg.data.num_classes = 1000
    model = trained(make(cfg.model))
    reference = timm.create_model(f"efficientvit_{size}").eval()
    reference.load_state_dict(export_names(model), strict=True)
    assert len(model.state_dict()) == len(reference.state_dict())
    if size == "m0":
        assert len(model.state_dict()) == 693
        assert len(official_names(reference.state_dict())) == 699
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        assert relative(model(images), reference(images)) <= 1e-6
