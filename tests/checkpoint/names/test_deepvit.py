"""The authors' DeepViT files: their names, built here as their code would write them."""

import pytest
import torch
from safetensors.torch import save_file

from tests.deep import official_logits, official_state, tiny_deepvit
from tests.tiny import randomise
from vitexp.checkpoint.load import export_names, load_weights
from vitexp.errors import CheckpointError


def save(tmp_path, tensors):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "deep.safetensors")
    return tmp_path / "deep.safetensors"


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("options", [{"plain": 0, "scale": 1.0}, {"plain": 2, "scale": 0.5, "cnn": True}])
def test_official_file_means_what_the_authors_code_means(tmp_path, options, training):
    state, model = official_state(**options), tiny_deepvit(**options).train(training)
    assert load_weights(model, save(tmp_path, state)) == []
    images = torch.randn(3, 3, 16, 16)
    expected = official_logits(state, images, training=training, scale=options["scale"])
    torch.testing.assert_close(model(images), expected, atol=2e-5, rtol=2e-5)


def test_positions_are_resized(tmp_path):
    lines = load_weights(tiny_deepvit(image_size=24), save(tmp_path, official_state()))
    assert lines == ["position: resized from 4x4 to 6x6 patches (position_method=timm)"]


def test_a_plain_file_does_not_pass_for_a_deep_one(tmp_path):
    path = save(tmp_path, official_state(plain=3))
    with pytest.raises(CheckpointError, match=r"missing from the file \(blocks\.1\.attention\.norm\.bias, "):
        load_weights(tiny_deepvit(plain=1), path)


def test_a_plain_one_is_timms_vit(tmp_path):
    import timm

    model = randomise(tiny_deepvit(plain=3)).eval()
    reference = timm.models.vision_transformer.VisionTransformer(
        img_size=16, patch_size=4, embed_dim=24, depth=3, num_heads=3, mlp_ratio=3, num_classes=5
    ).eval()
    reference.load_state_dict(export_names(model))
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model(images), reference(images), atol=1e-5, rtol=1e-5)
    again = tiny_deepvit(plain=3).eval()
    assert load_weights(again, save(tmp_path, reference.state_dict())) == []
    assert torch.equal(again(images), model(images))
    larger, images = tiny_deepvit(plain=3, image_size=24).eval(), torch.randn(2, 3, 24, 24)
    load_weights(larger, save(tmp_path, reference.state_dict()))
    reference.set_input_size(24)
    torch.testing.assert_close(larger(images), reference(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{"plain": 2}, {"plain": 3, "cnn": True}])
def test_timm_has_no_deepvit(options):
    with pytest.raises(CheckpointError, match=r"timm has no such model: .* use to=safetensors"):
        export_names(tiny_deepvit(**options))
