"""Names of the ResNet in front of a hybrid ViT: timm's and the authors', each against timm's own reading."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.hybrid import timm_hybrid, tiny_hybrid
from tests.tiny import randomise
from vitexp.checkpoint.load import export_names, load_weights

GEOMETRIES = [{"depths": (1, 2)}, {"depths": (), "projection": 2}]


def flax_arrays(depths, projection, *, old):
    """A file as the ViT authors write it; `old` ones keep group norms as (1, 1, 1, C)."""
    rng = np.random.default_rng(0)
    arrays = {}

    def put(name, *shape):
        arrays[name] = (rng.standard_normal(shape) * 0.1).astype(np.float32)

    def conv(name, norm, size, inputs, outputs):
        put(f"{name}/kernel", size, size, inputs, outputs)
        for part in ("scale", "bias"):
            put(f"{norm}/{part}", *((1, 1, 1, outputs) if old else (outputs,)))

    conv("conv_root", "gn_root", 7, 3, 64)
    inputs = 64
    for stage, depth in enumerate(depths):
        width = 64 << stage
        for unit in range(depth):
            place = f"block{stage + 1}/unit{unit + 1}"
            if unit == 0:
                conv(f"{place}/conv_proj", f"{place}/gn_proj", 1, inputs, 4 * width)
            conv(f"{place}/conv1", f"{place}/gn1", 1, inputs, width)
            conv(f"{place}/conv2", f"{place}/gn2", 3, width, width)
            conv(f"{place}/conv3", f"{place}/gn3", 1, width, 4 * width)
            inputs = 4 * width
    cells = 16
    put("embedding/kernel", projection, projection, inputs, 16)
    for name, shape in {
        "embedding/bias": (16,),
        "cls": (1, 1, 16),
        "Transformer/posembed_input/pos_embedding": (1, 1 + cells, 16),
        "Transformer/encoder_norm/scale": (16,),
        "Transformer/encoder_norm/bias": (16,),
        "head/kernel": (16, 5),
        "head/bias": (5,),
    }.items():
        put(name, *shape)
    for index in range(2):
        block = f"Transformer/encoderblock_{index}"
        attention = f"{block}/MultiHeadDotProductAttention_1"
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            put(f"{block}/{norm}/scale", 16)
            put(f"{block}/{norm}/bias", 16)
        for part in ("query", "key", "value"):
            put(f"{attention}/{part}/kernel", 16, 2, 8)
            put(f"{attention}/{part}/bias", 2, 8)
        put(f"{attention}/out/kernel", 2, 8, 16)
        put(f"{attention}/out/bias", 16)
        for dense, (rows, columns) in enumerate([(16, 64), (64, 16)]):
            put(f"{block}/MlpBlock_3/Dense_{dense}/kernel", rows, columns)
            put(f"{block}/MlpBlock_3/Dense_{dense}/bias", columns)
    return arrays


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_timm_there_and_back(tmp_path, geometry):
    reference, model = timm_hybrid(**geometry), tiny_hybrid(**geometry).eval()
    save_file(reference.state_dict(), tmp_path / "timm.safetensors")
    assert load_weights(model, tmp_path / "timm.safetensors") == []
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(images), reference(images), atol=1e-5, rtol=1e-5)
    exported = export_names(model)
    assert exported.keys() == reference.state_dict().keys()
    assert all(torch.equal(exported[name], tensor) for name, tensor in reference.state_dict().items())
    larger, images = tiny_hybrid(**geometry, image_size=64).eval(), torch.randn(2, 3, 64, 64)
    load_weights(larger, tmp_path / "timm.safetensors")
    at_size = timm_hybrid(**geometry, image_size=64)
    at_size.load_state_dict({**reference.state_dict(), "pos_embed": export_names(larger)["pos_embed"]})
    torch.testing.assert_close(larger(images), at_size(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_npz_loads_into_timm_as_into_ours(tmp_path, geometry, old):
    """Whether group norms have the old shape or the new one; timm is given the new one."""
    depths, projection = geometry["depths"], geometry.get("projection", 1)
    np.savez(tmp_path / "new.npz", **flax_arrays(depths, projection, old=False))
    np.savez(tmp_path / "read.npz", **flax_arrays(depths, projection, old=old))
    reference, model = timm_hybrid(**geometry), tiny_hybrid(**geometry).eval()
    reference.load_pretrained(str(tmp_path / "new.npz"))
    assert load_weights(model, tmp_path / "read.npz") == []
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(images), reference(images), atol=1e-5, rtol=1e-5)


def test_hugging_faces_backbone_loads_strictly(tmp_path):
    """Their hybrid is a BiT backbone in front of a ViT; the ViT part is the one that test_names_vit compares."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BitConfig(
        layer_type="bottleneck",
        depths=[1, 2],
        hidden_sizes=[256, 512],
        embedding_size=64,
        num_groups=32,
        global_padding="same",
        embedding_dynamic_padding=True,
        out_features=["stage2"],
    )
    torch.manual_seed(0)
    backbone = randomise(transformers.BitBackbone(config), seed=1).eval()
    vit = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8
    )
    theirs = transformers.ViTForImageClassification(vit)
    theirs.classifier = torch.nn.Linear(16, 5)
    state = theirs.state_dict()
    patches = "vit.embeddings.patch_embeddings."
    state[f"{patches}projection.weight"] = torch.randn(16, 512, 1, 1)
    state |= {f"{patches}backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "hf.safetensors")
    model = tiny_hybrid().eval()
    assert load_weights(model, tmp_path / "hf.safetensors") == []
    images = torch.randn(2, 3, 32, 32)
    expected = backbone(images).feature_maps[-1]
    found = {}
    model.stem.units[-1].register_forward_hook(lambda module, args, output: found.update(map=output))
    model(images)
    torch.testing.assert_close(found["map"], expected, rtol=1e-5, atol=1e-5 * float(expected.detach().abs().max()))
