"""DETR's weights under the authors' and Hugging Face's names, strictly; another number of classes; a backbone alone."""

import re
from pathlib import Path

import pytest
import torch

from tests.tiny import randomise
from tests.tiny_detr import tiny_detr, tiny_resnet
from vitexp.benchmark.detector import hugging_face
from vitexp.build import build_model
from vitexp.checkpoint.load import load_weights
from vitexp.checkpoint.names.detr import to_hf, to_timm
from vitexp.config.compose import compose
from vitexp.errors import CheckpointError, ConfigError


def older_hf(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Before transformers 5."""
    rules = [
        ("backbone.model.", "backbone.conv_encoder.model."),
        (".o_proj.", ".out_proj."),
        (r"\.mlp\.fc", ".fc"),
    ]
    for pattern, replacement in rules:
        tensors = {re.sub(pattern, replacement, name): tensor for name, tensor in tensors.items()}
    return tensors


@pytest.mark.parametrize("position", ["sine", "learned"])
@pytest.mark.parametrize("naming", [to_timm, to_hf, lambda tensors: older_hf(to_hf(tensors)), dict])
def test_every_naming_loads_wholly(naming, position: str, tmp_path: Path) -> None:
    source, target = randomise(tiny_detr(position=position)), tiny_detr(position=position, seed=1)
    file = tmp_path / "detr.pth"
    torch.save({"model": naming(source.state_dict())}, file)
    assert load_weights(target, file) == []
    assert all(torch.equal(tensor, target.state_dict()[name]) for name, tensor in source.state_dict().items())


def test_hugging_face_writes_these_names() -> None:
    model = tiny_detr(backbone=tiny_resnet(blocks=2))
    assert to_hf(model.state_dict()).keys() == hugging_face(model).state_dict().keys()


def test_other_classes_drop_the_class_head_and_say_so(tmp_path: Path) -> None:
    file = tmp_path / "detr.pth"
    source = randomise(tiny_detr(num_classes=91))
    torch.save({"model": to_timm(source.state_dict())}, file)
    target = tiny_detr(num_classes=3, seed=1)
    (line,) = load_weights(target, file)
    assert "91 classes in the file, 3 here" in line
    assert float(target.head["classes"].weight.detach().abs().max()) == 0
    assert torch.equal(target.queries, source.queries)
    with pytest.raises(CheckpointError, match="which only training can use"):
        load_weights(tiny_detr(num_classes=3), file, new_head=False)


def test_other_queries_or_depth_are_an_error(tmp_path: Path) -> None:
    file = tmp_path / "detr.pth"
    torch.save({"model": to_timm(tiny_detr().state_dict())}, file)
    with pytest.raises(CheckpointError, match="queries: 7x32 in the file, 9x32 here"):
        load_weights(tiny_detr(num_queries=9), file)
    with pytest.raises(CheckpointError, match="have no place"):
        load_weights(tiny_detr(depths=[1, 2]), file)


def test_a_classifier_gives_the_backbone_its_weights(tmp_path: Path) -> None:
    """As torchvision publishes them: with `fc`, without or with counters of batches."""
    backbone, target = tiny_resnet(), tiny_resnet()
    randomise(backbone)
    tensors = {**backbone.state_dict(), "fc.weight": torch.zeros(4, 2048), "fc.bias": torch.zeros(4)}
    tensors["bn1.num_batches_tracked"] = torch.tensor(1)
    torch.save(tensors, tmp_path / "resnet.pth")
    assert len(load_weights(target, tmp_path / "resnet.pth")) == 3
    assert torch.equal(target.conv1.weight, backbone.conv1.weight)


def test_backbone_checkpoint_loads_a_run_of_the_same_model(tmp_path: Path) -> None:
    vit = build_model(compose(["model=vit_nano", "data=coco", "augment=none", "size=32", "data.num_classes=10"]))
    torch.save(vit.state_dict(), tmp_path / "vit.pth")
    options = ["model=detr", "size=32", "data.num_classes=4", "model.dim=32", "model.depths=[1,1]", "model.mlp_dim=32"]
    cfg = compose([*options, "backbone=vit_nano", f"backbone_checkpoint={tmp_path}/vit.pth"])
    notes: list[str] = []
    model = build_model(cfg, notes=notes)
    assert torch.equal(model.get_parameter("backbone.position"), vit.get_parameter("position"))
    assert "10 classes in the file, 4 here" in notes[0]
    with pytest.raises(ConfigError, match="backbone_checkpoint is for detectors"):
        build_model(compose(["model=vit_nano", f"backbone_checkpoint={tmp_path}/vit.pth"]))
