"""Names, channel order and values of MobileViT's tensors, against the code that writes them."""

import re

import pytest
import torch
from safetensors.torch import save_file

from tests.tiny_mobile import XXS, mobilevit, relative, trained
from vitexp.checkpoint.load import export_names, load_weights
from vitexp.checkpoint.names.mobilevit import PIXELS, TURNED
from vitexp.errors import CheckpointError

SIZES = [(256, 256), (224, 224), (256, 192)]  # 224: an odd last map; 256 x 192: an oblong one


@pytest.fixture(scope="module")
def timm_model():
    import timm

    return trained(timm.create_model("mobilevit_xxs", num_classes=5), seed=1)


@pytest.fixture
def load(tmp_path):
    def run(tensors, model=None):
        path = tmp_path / "w.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        model = model if model is not None else mobilevit(XXS)
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
            ("conv_kxk", "local_rep.conv_3x3.block"),
            ("conv_1x1", "local_rep.conv_1x1.block.conv"),
            ("attn.qkv", "pre_norm_mha.1.qkv_proj"),
            ("attn.proj", "pre_norm_mha.1.out_proj"),
            ("norm1", "pre_norm_mha.0"),
            ("norm2", "pre_norm_ffn.0"),
            ("mlp.fc1", "pre_norm_ffn.1"),
            ("mlp.fc2", "pre_norm_ffn.4"),
            ("conv_proj", "conv_proj.block"),
            ("conv_fusion", "fusion.block"),
            ("final_conv", "conv_1x1_exp.block"),
            ("head.fc", "classifier.fc"),
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
        for size in SIZES:
            images = torch.rand(2, 3, *size)
            assert relative(model(images), timm_model(images)) < 1e-5
    back = timm.create_model("mobilevit_xxs", num_classes=5)
    back.load_state_dict(export_names(model), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(back.parameters(), timm_model.parameters(), strict=True))


def test_authors_weights_read_bgr_and_are_turned(load, timm_model):
    tensors = cvnets(timm_model.state_dict())
    assert "layer_3.1.global_rep.0.pre_norm_mha.1.qkv_proj.weight" in tensors
    assert "layer_5.1.global_rep.3.weight" in tensors
    model, lines = load(tensors)
    assert lines == [f"{TURNED} (ml-cvnets)", f"{PIXELS} (ml-cvnets)"]
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model(images), timm_model(images.flip(1)), rtol=1e-5, atol=1e-5)
        assert (model(images) - timm_model(images)).abs().max() > 1e-4


def test_authors_encoder_of_a_detector(load, timm_model):
    tensors = {f"encoder.{n}": t for n, t in cvnets(timm_model.state_dict()).items() if not n.startswith("classifier.")}
    _, lines = load(tensors)
    assert lines[-1] == "head.weight, head.bias: none in the file, 5 here: a new head that starts at zero"


@pytest.fixture(scope="module")
def hf_model():
    from transformers import MobileViTConfig, MobileViTForImageClassification

    config = MobileViTConfig(
        hidden_sizes=XXS["dims"], neck_hidden_sizes=XXS["channels"], expand_ratio=2.0, num_labels=5
    )
    return trained(MobileViTForImageClassification(config), seed=2)


def test_hugging_face_reads_bgr_and_is_turned(load, hf_model):
    model, lines = load(hf_model.state_dict())
    assert lines == [f"{TURNED} (Hugging Face)", f"{PIXELS} (Hugging Face)"]
    with torch.inference_mode():
        for size in SIZES:
            images = torch.rand(2, 3, *size)
            assert relative(model(images), hf_model(images.flip(1)).logits) < 1e-5


def test_hugging_face_backbone_alone(load, hf_model):
    model, lines = load(hf_model.mobilevit.state_dict())
    assert "a new head that starts at zero" in lines[-1]
    turned = hf_model.mobilevit.conv_stem.convolution.weight.flip(1)
    assert torch.equal(model.stem.conv.weight, turned)


def test_own_names_round_trip_in_silence(load):
    original = trained(mobilevit(), seed=3)
    model, lines = load(original.state_dict(), mobilevit())
    assert lines == []
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), original.state_dict().values(), strict=True)
    )


def test_another_width_is_refused(load, timm_model):
    with pytest.raises(CheckpointError, match="missing from the file"):
        load(timm_model.state_dict(), mobilevit())
