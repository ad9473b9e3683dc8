"""Names of Swin V2 tensors, against the code that writes them: same weights, same logits, padding included."""

import re

import pytest
import torch
from safetensors.torch import save_file

from tests.tiny import tiny_swinv2
from vitexp.checkpoint.load import export_names, load_weights
from vitexp.errors import CheckpointError

SIZES = [32, 40]  # 8 x 8 and 4 x 4 cells; 10 x 10 and 5 x 5, which windows of 4 overhang


def randomised(model):
    """Values that show in the logits: norms start at zero, scales all alike, biases of pairs nearly constant."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            wide = "norm" in name or "logit_scale" in name or parameter.ndim == 1
            parameter.add_(torch.randn_like(parameter) * (0.5 if wide else 0.2))
    return model.eval()


def timm_model(size):
    import timm

    return randomised(
        timm.models.swin_transformer_v2.SwinTransformerV2(
            img_size=size, embed_dim=8, depths=(2, 2), num_heads=(2, 4), window_size=4, num_classes=5
        )
    )


def hf_model(size):
    from transformers import Swinv2Config, Swinv2ForImageClassification

    config = Swinv2Config(
        image_size=size, embed_dim=8, depths=[2, 2], num_heads=[2, 4], window_size=4, num_labels=5, drop_path_rate=0.0
    )
    return randomised(Swinv2ForImageClassification(config))


def ours(size, padding):
    """The nets of both references are 512 wide."""
    return tiny_swinv2(image_size=size, padding=padding, bias_hidden_dim=512).eval()


def assert_same(a, b):
    assert b.std() > 0.1
    assert (a - b).abs().max() / b.abs().max() < 1e-5


def official_names(tensors):
    """A file as the authors' code writes it, made from timm's names by the differences that are known."""
    renamed = {}
    for name, tensor in tensors.items():
        name = re.sub(r"^layers\.(\d+)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", name)
        renamed[name.replace("head.fc.", "head.")] = tensor
    for block in {name.split(".attn.")[0] for name in renamed if ".attn." in name}:
        renamed[f"{block}.attn.relative_coords_table"] = torch.zeros(1, 7, 7, 2)
        renamed[f"{block}.attn.relative_position_index"] = torch.zeros(16, 16, dtype=torch.long)
        if block.endswith("blocks.1"):
            renamed[f"{block}.attn_mask"] = torch.zeros(4, 16, 16)
    return renamed


@pytest.mark.parametrize("size", SIZES)
def test_timm(tmp_path, size):
    reference, model = timm_model(size), ours(size, "timm")
    torch.save({"state_dict": reference.state_dict()}, tmp_path / "timm.pth")
    assert load_weights(model, tmp_path / "timm.pth") == []
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        assert_same(model(images), reference(images))
        maps = reference.forward_intermediates(images, intermediates_only=True, output_fmt="NCHW")
        for mine, theirs in zip(model.features(images), maps, strict=True):
            assert_same(mine, theirs)


def test_masked_padding_is_another_model_only_where_there_is_padding(tmp_path):
    for size, same in zip(SIZES, (True, False), strict=True):
        reference, model = timm_model(size), ours(size, "masked")
        torch.save(reference.state_dict(), tmp_path / "timm.pth")
        load_weights(model, tmp_path / "timm.pth")
        images = torch.randn(2, 3, size, size)
        with torch.no_grad():
            assert torch.allclose(model(images), reference(images), atol=1e-5) is same


def test_to_timm_and_back(tmp_path):
    model = randomised(ours(32, "masked"))
    exported = export_names(model)
    timm_model(32).load_state_dict(exported)
    torch.save(exported, tmp_path / "timm.pth")
    twin = ours(32, "masked")
    load_weights(twin, tmp_path / "timm.pth")
    assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("old", [False, True])
def test_official(tmp_path, old):
    reference, model = timm_model(32), ours(32, "masked")
    state = official_names(reference.state_dict())
    assert "layers.0.downsample.reduction.weight" in state
    if old:  # SimMIM's first files
        state = {name.replace("cpb_mlp", "rpe_mlp"): tensor for name, tensor in state.items()}
    torch.save({"model": state}, tmp_path / "official.pth")
    assert load_weights(model, tmp_path / "official.pth") == []
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert_same(model(images), reference(images))


@pytest.mark.parametrize("size", SIZES)
def test_hugging_face(tmp_path, size):
    reference, model = hf_model(size), ours(size, "hf")
    state = {name: tensor.contiguous() for name, tensor in reference.state_dict().items()}
    assert "swinv2.encoder.layers.0.blocks.0.attention.self.query.bias" in state
    save_file(state, tmp_path / "hf.safetensors")
    assert load_weights(model, tmp_path / "hf.safetensors") == []
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        assert_same(model(images), reference(images).logits)


def test_hugging_face_backbone_alone(tmp_path):
    state = {name: tensor.contiguous() for name, tensor in hf_model(32).swinv2.state_dict().items()}
    save_file(state, tmp_path / "hf.safetensors")
    (line,) = load_weights(ours(32, "hf"), tmp_path / "hf.safetensors")
    assert line == "head.weight, head.bias: none in the file, 5 here: a new head that starts at zero"


def test_a_file_with_a_gap_or_too_much_is_refused(tmp_path):
    state = official_names(timm_model(32).state_dict())
    del state["layers.0.blocks.1.attn.q_bias"]
    state["layers.0.blocks.1.attn.k_bias"] = torch.zeros(8)
    torch.save(state, tmp_path / "official.pth")
    with pytest.raises(CheckpointError, match=r"1 tensors are missing.*q_bias.*1 have no place.*k_bias"):
        load_weights(ours(32, "masked"), tmp_path / "official.pth")


def test_weights_of_a_window_load_at_another(tmp_path):
    reference = timm_model(32)
    torch.save(reference.state_dict(), tmp_path / "timm.pth")
    model = tiny_swinv2(image_size=64, window=8, pretrained_size=4, bias_hidden_dim=512)
    assert load_weights(model, tmp_path / "timm.pth") == []
