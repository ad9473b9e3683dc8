"""Names and layouts of ViT tensors, against the code that writes them."""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.tiny import randomise, tiny_vit
from vitexp.checkpoint.load import load_weights

DIM, HEADS, DEPTH, PATCH, CLASSES = 16, 2, 2, 4, 5


def model_of(image_size=16, **options):
    return tiny_vit(image_size=image_size, dim=DIM, depth=DEPTH, num_heads=HEADS, num_classes=CLASSES, **options).eval()


def flax_arrays(*, pre_logits=True):
    """A file as the ViT authors write it: names and shapes of the fact sheet's table, random values."""
    rng = np.random.default_rng(0)
    head_dim = DIM // HEADS

    def array(*shape):
        return (rng.standard_normal(shape) * 0.1).astype(np.float32)

    arrays = {
        "cls": array(1, 1, DIM),
        "embedding/kernel": array(PATCH, PATCH, 3, DIM),
        "embedding/bias": array(DIM),
        "Transformer/posembed_input/pos_embedding": array(1, 17, DIM),
        "Transformer/encoder_norm/scale": array(DIM),
        "Transformer/encoder_norm/bias": array(DIM),
        "head/kernel": array(DIM, CLASSES),
        "head/bias": array(CLASSES),
    }
    if pre_logits:
        arrays |= {"pre_logits/kernel": array(DIM, DIM), "pre_logits/bias": array(DIM)}
    for index in range(DEPTH):
        block, attention = f"Transformer/encoderblock_{index}", "MultiHeadDotProductAttention_1"
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            arrays |= {f"{block}/{norm}/scale": array(DIM), f"{block}/{norm}/bias": array(DIM)}
        for part in ("query", "key", "value"):
            arrays[f"{block}/{attention}/{part}/kernel"] = array(DIM, HEADS, head_dim)
            arrays[f"{block}/{attention}/{part}/bias"] = array(HEADS, head_dim)
        arrays[f"{block}/{attention}/out/kernel"] = array(HEADS, head_dim, DIM)
        arrays[f"{block}/{attention}/out/bias"] = array(DIM)
        for dense, (rows, columns) in enumerate([(DIM, 4 * DIM), (4 * DIM, DIM)]):
            arrays[f"{block}/MlpBlock_3/Dense_{dense}/kernel"] = array(rows, columns)
            arrays[f"{block}/MlpBlock_3/Dense_{dense}/bias"] = array(columns)
    return arrays


def flax_forward(w, images):
    """ViT in the authors' layout, written out with einsum; images (B, H, W, 3)."""
    w = {name: torch.from_numpy(array).double() for name, array in w.items()}

    def norm(x, name):
        return torch.nn.functional.layer_norm(x, (DIM,), w[f"{name}/scale"], w[f"{name}/bias"], eps=1e-6)

    patches = images.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH)  # (B, h, w, 3, P, P)
    x = torch.einsum("bhwcij,ijcd->bhwd", patches, w["embedding/kernel"]) + w["embedding/bias"]
    x = torch.cat([w["cls"].expand(len(x), -1, -1), x.flatten(1, 2)], dim=1)
    x = x + w["Transformer/posembed_input/pos_embedding"]
    for index in range(DEPTH):
        block = f"Transformer/encoderblock_{index}"
        attention, y = f"{block}/MultiHeadDotProductAttention_1", norm(x, f"{block}/LayerNorm_0")
        q, k, v = (
            torch.einsum("bnd,dhe->bnhe", y, w[f"{attention}/{part}/kernel"]) + w[f"{attention}/{part}/bias"]
            for part in ("query", "key", "value")
        )
        weights = (torch.einsum("bnhe,bmhe->bhnm", q, k) / (DIM // HEADS) ** 0.5).softmax(-1)
        read = torch.einsum("bhnm,bmhe->bnhe", weights, v)
        x = x + torch.einsum("bnhe,hed->bnd", read, w[f"{attention}/out/kernel"]) + w[f"{attention}/out/bias"]
        y = norm(x, f"{block}/LayerNorm_2") @ w[f"{block}/MlpBlock_3/Dense_0/kernel"]
        y = torch.nn.functional.gelu(y + w[f"{block}/MlpBlock_3/Dense_0/bias"])
        x = x + y @ w[f"{block}/MlpBlock_3/Dense_1/kernel"] + w[f"{block}/MlpBlock_3/Dense_1/bias"]
    return norm(x, "Transformer/encoder_norm")[:, 0] @ w["head/kernel"] + w["head/bias"]


def save_npz(tmp_path, arrays):
    np.savez(tmp_path / "vit.npz", **arrays)
    return tmp_path / "vit.npz"


def test_npz_means_what_the_authors_code_means(tmp_path):
    arrays, model = flax_arrays(), model_of()
    lines = load_weights(model, save_npz(tmp_path, arrays))
    assert sorted(lines) == [
        f"pre_logits/{name}: dropped, the model has no such layer (Google .npz)" for name in ("bias", "kernel")
    ]
    images = torch.randn(2, 16, 16, 3, dtype=torch.double)
    logits = model.double()(images.permute(0, 3, 1, 2))
    torch.testing.assert_close(logits, flax_forward(arrays, images))


@pytest.mark.parametrize("prefix", ["opt/target/", "params/"])
def test_npz_prefixes(tmp_path, prefix):
    arrays, model, plain = flax_arrays(pre_logits=False), model_of(), model_of()
    load_weights(plain, save_npz(tmp_path, arrays))
    assert load_weights(model, save_npz(tmp_path, {prefix + name: a for name, a in arrays.items()})) == []
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))


@pytest.mark.parametrize("stacked", [False, True])
def test_big_vision_layout(tmp_path, stacked):
    """Other sub-indices, positions at the root without a class row, and perhaps all layers in one array."""
    arrays, plain, model = flax_arrays(pre_logits=False), model_of(), model_of()
    load_weights(plain, save_npz(tmp_path, arrays))
    renamed = {}
    for name, array in arrays.items():
        name = name.replace("MultiHeadDotProductAttention_1", "MultiHeadDotProductAttention_0")
        name = name.replace("LayerNorm_2", "LayerNorm_1").replace("MlpBlock_3", "MlpBlock_0")
        renamed[f"params/{name.replace('Transformer/posembed_input/', '')}"] = array
    renamed["params/pos_embedding"] = renamed["params/pos_embedding"][:, 1:]
    if stacked:
        first = [name for name in renamed if "encoderblock_0/" in name]
        for name in first:
            layers = [renamed.pop(name.replace("_0/", f"_{i}/", 1)) for i in range(DEPTH)]
            renamed[name.replace("encoderblock_0/", "encoderblock/")] = np.stack(layers)
    (line,) = load_weights(model, save_npz(tmp_path, renamed))
    assert "zero row" in line
    with torch.no_grad():
        plain.position[:, 0] = 0
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))


def test_npz_positions_resize_as_the_authors_do(tmp_path):
    lines = load_weights(model_of(image_size=24), save_npz(tmp_path, flax_arrays(pre_logits=False)))
    assert lines == ["position: resized from 4x4 to 6x6 patches (position_method=official)"]


def test_npz_loads_into_timm_as_into_ours(tmp_path):
    """B/32 in small: timm reads the same file to the same logits; the file has 8 + 16 L arrays (200 for L = 12)."""
    import timm

    arrays = flax_arrays(pre_logits=False)
    assert len(arrays) == 8 + 16 * DEPTH
    path, model = save_npz(tmp_path, arrays), model_of()
    reference = timm.models.vision_transformer.VisionTransformer(
        img_size=16, patch_size=PATCH, embed_dim=DIM, depth=DEPTH, num_heads=HEADS, num_classes=CLASSES
    ).eval()
    reference.load_pretrained(str(path))
    load_weights(model, path)
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model(images), reference(images), atol=1e-5, rtol=0)


@pytest.fixture
def hf_model():
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=DIM,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=4 * DIM,
        image_size=16,
        patch_size=PATCH,
        num_labels=CLASSES,
        layer_norm_eps=1e-6,
    )
    return randomise(ViTForImageClassification(config), seed=3).eval()


def old_hf_name(name):
    """The names before transformers 5."""
    name = name.replace("vit.layers.", "vit.encoder.layer.")
    for short, long in (("q", "query"), ("k", "key"), ("v", "value")):
        name = name.replace(f".attention.{short}_proj.", f".attention.attention.{long}.")
    name = name.replace(".attention.o_proj.", ".attention.output.dense.")
    return name.replace(".mlp.fc1.", ".intermediate.dense.").replace(".mlp.fc2.", ".output.dense.")


@pytest.mark.parametrize("names", ["new", "old"])
def test_hugging_face(tmp_path, hf_model, names):
    state = {name: tensor.contiguous() for name, tensor in hf_model.state_dict().items()}
    assert "vit.layers.0.attention.q_proj.weight" in state
    if names == "old":
        state = {old_hf_name(name): tensor for name, tensor in state.items()}
    save_file(state, tmp_path / "hf.safetensors")
    model = model_of()
    assert load_weights(model, tmp_path / "hf.safetensors") == []
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model(images), hf_model(images).logits, atol=1e-5, rtol=0)
    model, images = model_of(image_size=24), torch.randn(2, 3, 24, 24)
    assert "resized from 4x4 to 6x6" in load_weights(model, tmp_path / "hf.safetensors")[0]
    expected = hf_model(images, interpolate_pos_encoding=True).logits
    torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=0)


def test_hugging_face_backbone_alone(tmp_path, hf_model):
    """ViTModel has no `vit.` prefix, a pooler and no classifier."""
    state = {name.removeprefix("vit."): t.contiguous() for name, t in hf_model.vit.state_dict().items()}
    save_file(state | {"pooler.dense.bias": torch.ones(DIM)}, tmp_path / "hf.safetensors")
    lines = load_weights(model_of(), tmp_path / "hf.safetensors")
    assert lines == [
        "pooler.dense.bias: dropped, the model has no such layer (Hugging Face)",
        f"head.weight, head.bias: none in the file, {CLASSES} here: a new head that starts at zero",
    ]


def test_timm_whole(tmp_path):
    import timm

    reference = timm.models.vision_transformer.VisionTransformer(
        img_size=16, patch_size=PATCH, embed_dim=DIM, depth=DEPTH, num_heads=HEADS, num_classes=CLASSES
    )
    randomise(reference, seed=4).eval()
    torch.save({"state_dict": reference.state_dict()}, tmp_path / "timm.pth")
    model = model_of()
    assert load_weights(model, tmp_path / "timm.pth") == []
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model(images), reference(images), atol=1e-5, rtol=0)
    for size in (24, 12):
        larger, images = model_of(image_size=size), torch.randn(2, 3, size, size)
        assert "resized from 4x4" in load_weights(larger, tmp_path / "timm.pth")[0]
        at_size = copy.deepcopy(reference)
        at_size.set_input_size(size)
        torch.testing.assert_close(larger(images), at_size(images), atol=1e-5, rtol=0)
