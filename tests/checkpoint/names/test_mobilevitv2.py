"""Names and layouts of MobileViT v2's tensors, against the code that writes them."""

import re

import pytest
import torch
from safetensors.torch import save_file

from tests.tiny_mobile import V2_050, mobilevit, mobilevitv2, relative, trained
from vitexp.checkpoint.load import export_names, load_weights
from vitexp.checkpoint.names.mobilevit import PIXELS
from vitexp.errors import CheckpointError


@pytest.fixture(scope="module")
def timm_model():
    import timm

    return trained(timm.create_model("mobilevitv2_050", num_classes=5), seed=1)


@pytest.fixture
def load(tmp_path):
    def run(tensors, model=None):
        path = tmp_path / "w.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        model = model if model is not None else mobilevitv2(V2_050)
        return model.eval(), load_weights(model, path)

    return run


def cvnets(timm_tensors):
    """Timm's tensors under the authors' names: both list the same tensors in the same order."""
    names = []
    for name in timm_tensors:
        name = re.sub(r"\.bn\.", ".norm.", name)
        name = re.sub(r"^stem\.", "conv_1.block.", name)
        name = re.sub(r"^stages\.(\d)\.", lambda found: f"layer_{int(found[1]) + 1}.", name)
        for theirs, authors in (
            ("conv1_1x1", "block.exp_1x1.block"),
            ("conv2_kxk", "block.conv_3x3.block"),
            ("conv3_1x1", "block.red_1x1.block"),
            ("conv_kxk", "local_rep.0.block"),
            ("conv_1x1", "local_rep.1.block.conv"),
            ("attn.qkv_proj", "pre_norm_attn.1.qkv_proj.block.conv"),
            ("attn.out_proj", "pre_norm_attn.1.out_proj.block.conv"),
            ("norm1", "pre_norm_attn.0"),
            ("norm2", "pre_norm_ffn.0"),
            ("mlp.fc1", "pre_norm_ffn.1.block.conv"),
            ("mlp.fc2", "pre_norm_ffn.3.block.conv"),
            ("conv_proj", "conv_proj.block"),
            ("head.fc", "classifier.1"),
            ("transformer", "global_rep"),
        ):
            name = re.sub(rf"(^|\.){re.escape(theirs)}\.", rf"\1{authors}.", name)
        depth = {"layer_3": 2, "layer_4": 4, "layer_5": 3}.get(name.split(".")[0], 0)
        names.append(re.sub(r"^(layer_\d\.1)\.norm\.", rf"\1.global_rep.{depth}.", name))
    return dict(zip(names, timm_tensors.values(), strict=True))


def test_timm_both_ways(load, timm_model):
    import timm

    model, lines = load(timm_model.state_dict())
    assert lines == [f"{PIXELS} (timm)"]
    with torch.inference_mode():
        for size in [(256, 256), (224, 224), (256, 192)]:
            images = torch.rand(2, 3, *size)
            assert relative(model(images), timm_model(images)) < 1e-5
    back = timm.create_model("mobilevitv2_050", num_classes=5)
    back.load_state_dict(export_names(model), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(back.parameters(), timm_model.parameters(), strict=True))


def test_authors_weights_read_rgb(load, timm_model):
    tensors = cvnets(timm_model.state_dict())
    assert "layer_3.1.global_rep.0.pre_norm_attn.1.qkv_proj.block.conv.weight" in tensors
    model, lines = load(tensors)
    assert lines == [f"{PIXELS} (ml-cvnets)"]
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model(images), timm_model(images), rtol=1e-5, atol=1e-5)


def test_hugging_face(load):
    """Only where all maps are even: its code drops the last row and column of odd ones."""
    from transformers import MobileViTV2Config, MobileViTV2ForImageClassification

    reference = trained(
        MobileViTV2ForImageClassification(MobileViTV2Config(width_multiplier=0.5, num_labels=5)), seed=2
    )
    model, lines = load(reference.state_dict())
    assert lines == [f"{PIXELS} (Hugging Face)"]
    with torch.inference_mode():
        for size in [(256, 256), (256, 192)]:
            images = torch.rand(2, 3, *size)
            assert relative(model(images), reference(images).logits) < 1e-5


def test_own_names_round_trip_in_silence(load):
    original = trained(mobilevitv2(), seed=3)
    model, lines = load(original.state_dict(), mobilevitv2())
    assert lines == []
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), original.state_dict().values(), strict=True)
    )


def test_the_first_version_is_refused(load, timm_model):
    with pytest.raises(CheckpointError, match="missing from the file"):
        load(timm_model.state_dict(), mobilevit())
