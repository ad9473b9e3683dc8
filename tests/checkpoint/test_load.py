"""Loading is strict; what it adapts, it says."""

import re

import pytest
import torch
from safetensors.torch import save_file

from tests.tiny import conv_stem, randomise, tiny_vit
from vitexp.checkpoint.load import export_names, load_weights
from vitexp.errors import CheckpointError
from vitexp.layer.position import resize_position


@pytest.fixture
def save(tmp_path):
    def write(tensors, metadata=None):
        path = tmp_path / "w.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
        return path

    return write


def source(**options):
    return randomise(tiny_vit(**options), seed=1).state_dict()


def assert_equal(model, tensors):
    state = model.state_dict()
    assert state.keys() == tensors.keys()
    for name in tensors:
        assert torch.equal(state[name], tensors[name]), name


@pytest.mark.parametrize("options", [{}, {"pool": "mean"}, {"stem": conv_stem(4)}])
def test_own_names_round_trip_in_silence(save, options):
    tensors = source(**options)
    model = tiny_vit(**options)
    assert load_weights(model, save(tensors)) == []
    assert_equal(model, tensors)


@pytest.mark.parametrize("image_size", [16, (12, 20)])
def test_timm_names_round_trip(save, image_size):
    original = randomise(tiny_vit(image_size=image_size), seed=1)
    model = tiny_vit(image_size=image_size)
    assert load_weights(model, save(export_names(original))) == []
    assert_equal(model, original.state_dict())


def test_positions_are_resized(save):
    tensors = source(image_size=16)
    model = tiny_vit(image_size=(32, 24))
    lines = load_weights(model, save(tensors))
    assert lines == ["position: resized from 4x4 to 8x6 patches (position_method=official)"]
    expected = resize_position(tensors["position"], old_grid=(4, 4), new_grid=(8, 6), num_prefix=1, method="official")
    assert torch.equal(model.position, expected)
    assert torch.equal(model.class_token, tensors["class_token"])


def test_origin_decides_the_method_unless_told(save):
    original = randomise(tiny_vit(), seed=1)
    path = save(export_names(original))
    model = tiny_vit(image_size=24)
    assert "position_method=timm)" in load_weights(model, path)[0]
    by_origin = model.position.clone()
    assert "position_method=official)" in load_weights(model, path, position_method="official")[0]
    assert not torch.allclose(by_origin, model.position)


def test_grid_in_the_metadata(save):
    tensors = source(image_size=(8, 32))
    model = tiny_vit(image_size=16)
    lines = load_weights(model, save(tensors, metadata={"grid": "2x8"}))
    assert lines == ["position: resized from 2x8 to 4x4 patches (position_method=official)"]


def test_positions_without_a_class_row(save):
    tensors = export_names(randomise(tiny_vit(), seed=1))
    rows = tensors["pos_embed"][:, 1:]
    model = tiny_vit()
    lines = load_weights(model, save(tensors | {"pos_embed": rows}))
    assert lines == ["position: 1 zero row(s) put in front, the file has positions for patches only"]
    assert torch.equal(model.position[:, 1:], rows)
    assert model.position[:, 0].abs().max() == 0


@pytest.mark.parametrize("head", ["other", "none"])
def test_head_for_other_classes_becomes_zero(save, head):
    tensors = source(num_classes=9)
    if head == "none":
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}
    model = tiny_vit(num_classes=5)
    lines = load_weights(model, save(tensors))
    given = "9 classes in the file" if head == "other" else "none in the file"
    assert lines == [f"head.weight, head.bias: {given}, 5 here: a new head that starts at zero"]
    assert torch.equal(model(torch.randn(2, 3, 16, 16)), torch.zeros(2, 5))
    with pytest.raises(CheckpointError, match="only training can use"):
        load_weights(model, save(tensors), new_head=False)


def test_number_formats_are_converted(save):
    tensors = {name: tensor.half() for name, tensor in source().items()}
    model = tiny_vit()
    (line,) = load_weights(model, save(tensors))
    assert line == f"{len(tensors)} tensors: float16 in the file, float32 here"
    assert model.position.dtype == torch.float32


def test_layers_without_a_place_are_dropped(save):
    tensors = export_names(tiny_vit()) | {"pre_logits.fc.weight": torch.ones(16, 16)}
    assert load_weights(tiny_vit(), save(tensors)) == [
        "pre_logits.fc.weight: dropped, the model has no such layer (timm)"
    ]


def refused(model, path):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, path)
    assert_equal(model, before)
    return str(caught.value)


def test_missing_and_unexpected_are_both_listed(save):
    tensors = source()
    del tensors["norm.weight"]
    message = refused(tiny_vit(), save(tensors | {"blocks.0.gamma": torch.ones(3)}))
    assert "1 tensors are missing from the file (norm.weight)" in message
    assert "1 have no place in the model (blocks.0.gamma)" in message


def test_other_depth_names_a_few_and_counts_all(save):
    message = refused(tiny_vit(depth=1), save(source(depth=3)))
    assert re.search(r"24 have no place in the model \(blocks\.1\.\S+, .*, \.\.\. 24 in all\)", message)


@pytest.mark.parametrize(
    ("given", "built"), [({"pool": "mean"}, {}), ({}, {"pool": "mean"})], ids=["mean to token", "token to mean"]
)
def test_class_token_and_mean_are_not_converted(save, given, built):
    assert "class_token" in refused(tiny_vit(**built), save(source(**given)))


def test_other_width(save):
    message = refused(tiny_vit(dim=16), save(source(dim=32, num_classes=5)))
    assert "differ in shape (" in message
    assert "32 in the file" in message


def test_positions_of_no_known_grid(save):
    tensors = source()
    tensors["position"] = torch.randn(1, 1 + 13, 16)
    assert "position: 1x14x16 in the file, 1x17x16 here" in refused(tiny_vit(), save(tensors))


def test_another_network(save):
    message = refused(tiny_vit(), save({"conv1.weight": torch.ones(2), "fc.bias": torch.ones(2)}))
    assert "it has conv1.weight, fc.bias; the model has" in message
    assert "timm, Hugging Face, Google .npz" in message
