"""DETR: equal to Hugging Face's given its weights, padding, gradients, folding, the gaze, errors."""

from functools import partial
from typing import Any

import pytest
import torch

from tests.tiny import randomise, tiny_vit
from tests.tiny_detr import SOFTMAX, padded_batch, tiny_detr, tiny_resnet
from vitexp.benchmark.detector import hugging_face
from vitexp.checkpoint.load import export_names
from vitexp.detection.criterion import Criterion
from vitexp.detection.matcher import Matcher
from vitexp.errors import ConfigError
from vitexp.model.detr import Detr
from vitexp.model.resnet import ResNet

TARGETS = [
    {"labels": torch.tensor([1, 3]), "boxes_cxcywh": torch.tensor([[0.4, 0.5, 0.3, 0.2], [0.7, 0.2, 0.1, 0.3]])},
    {"labels": torch.tensor([0]), "boxes_cxcywh": torch.tensor([[0.5, 0.5, 0.9, 0.8]])},
]


def assert_equal_to_hugging_face(model: Detr, reference: Any) -> None:
    """Logits, boxes and each layer's losses on two images of different size in one batch."""
    images, padding = padded_batch()
    labels = [{"class_labels": t["labels"], "boxes": t["boxes_cxcywh"]} for t in TARGETS]
    with torch.no_grad():
        ours = model.eval()(images, padding)
        theirs = reference(images, pixel_mask=(~padding).long(), labels=labels)
    assert theirs.logits.std() > 0.1
    torch.testing.assert_close(ours.logits[-1], theirs.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.boxes_cxcywh[-1], theirs.pred_boxes, atol=1e-5, rtol=0)
    matcher = Matcher(class_cost=1.0, l1_cost=5.0, giou_cost=2.0)
    criterion = Criterion(matcher=matcher, class_weight=1.0, l1_weight=5.0, giou_weight=2.0, no_object_weight=0.1)
    loss, (by_class, l1, giou), _ = criterion(ours.logits, ours.boxes_cxcywh, TARGETS)
    expected = [theirs.loss_dict[key] for key in ("loss_ce", "loss_bbox", "loss_giou")]
    torch.testing.assert_close(torch.stack([by_class, l1, giou]), torch.stack(expected), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loss, theirs.loss, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("position", ["sine", "learned"])
def test_equals_hugging_face(position: str) -> None:
    model = tiny_detr(backbone=tiny_resnet(blocks=2), position=position)
    assert_equal_to_hugging_face(model, hugging_face(model))


@pytest.mark.slow
def test_the_published_size_equals_hugging_face() -> None:
    torch.manual_seed(0)
    model = Detr(
        backbone=ResNet(depth=50, dilated=False),
        attention=SOFTMAX,
        position="sine",
        dim=256,
        num_heads=8,
        depths=[6, 6],
        mlp_dim=2048,
        num_queries=100,
        num_classes=91,
        refine_boxes=False,
    )
    assert_equal_to_hugging_face(model, hugging_face(model))


def test_shapes_of_every_layer() -> None:
    out = tiny_detr()(torch.randn(2, 3, 64, 96))
    assert out.logits.shape == (2, 2, 7, 6)
    assert out.boxes_cxcywh.shape == (2, 2, 7, 4)
    assert ((out.boxes_cxcywh > 0) & (out.boxes_cxcywh < 1)).all()


def test_gradients_reach_every_trainable_parameter() -> None:
    model = randomise(tiny_detr(attention=partial(SOFTMAX, dropout=0.1), dropout=0.1)).train()
    images, padding = padded_batch()
    out = model(images, padding)
    (out.logits.logsumexp(-1).sum() + out.boxes_cxcywh.square().sum()).backward()
    # The first block's queries start at zero, so its first attention reads its own bias alone.
    silent = "decoder.0.self_attention.variant.qkv_projection.weight"
    for name, parameter in model.named_parameters():
        if name == silent:
            continue
        frozen = name.startswith(("backbone.conv1", "backbone.layer1"))
        assert frozen != (parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)), name


def test_no_padding_and_a_mask_of_nothing_are_the_same() -> None:
    model, images = tiny_detr().eval(), torch.randn(1, 3, 64, 96)
    padded = model(images, torch.zeros(1, 64, 96, dtype=torch.bool))
    torch.testing.assert_close(model(images).logits, padded.logits, atol=1e-5, rtol=1e-5)


def test_what_stands_in_padded_cells_is_never_read() -> None:
    """A backbone with cells of its own: one patch a cell, so that padding cannot leak inside it."""
    model = tiny_detr(backbone=PatchBackbone()).eval()
    images, padding = padded_batch()
    before = model(images, padding)
    noise = torch.where(padding[:, None], torch.randn_like(images), images)
    after = model(noise, padding)
    torch.testing.assert_close(before.logits, after.logits, atol=1e-5, rtol=1e-5)
    looks = model.look(images, padding)
    assert float(looks[1, :, 2:].abs().max()) == 0
    assert float(looks[1, :, :, 3:].abs().max()) == 0


class PatchBackbone(torch.nn.Module):
    """32-pixel patches, each a cell."""

    dim, strides, grid = 8, (32,), (2, 2)

    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 8, 32, stride=32)

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [self.patches(images)]


def test_boxes_are_in_full_precision_under_autocast() -> None:
    model, images = tiny_detr().eval(), torch.randn(1, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(images)
    assert (out.logits.dtype, out.boxes_cxcywh.dtype) == (torch.bfloat16, torch.float32)
    assert out.boxes_cxcywh.isfinite().all()


def test_the_gaze_is_a_distribution_over_the_map() -> None:
    looks = tiny_detr().eval().look(torch.randn(2, 3, 64, 96))
    assert looks.shape == (2, 7, 2, 3)
    torch.testing.assert_close(looks.sum((2, 3)), torch.ones(2, 7))


def test_folding_changes_nothing_but_the_norms() -> None:
    model, (images, padding) = tiny_detr().eval(), padded_batch()
    before = model(images, padding)
    model.fuse()
    torch.testing.assert_close(model(images, padding).logits, before.logits, atol=1e-4, rtol=1e-4)


def test_permuting_queries_permutes_the_answers() -> None:
    model, images = tiny_detr().eval(), torch.randn(1, 3, 64, 64)
    before = model(images)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    model.queries.data = model.queries.data[order]
    torch.testing.assert_close(model(images).logits, before.logits[:, :, order], atol=1e-5, rtol=1e-5)


def test_refined_boxes_add_up_before_the_sigmoid() -> None:
    plain, refined = tiny_detr().eval(), tiny_detr(refine_boxes=True).eval()
    images = torch.randn(1, 3, 64, 64)
    a, b = plain(images).boxes_cxcywh, refined(images).boxes_cxcywh
    torch.testing.assert_close(a[0], b[0])
    torch.testing.assert_close(b[1].logit(), a[0].logit() + a[1].logit(), atol=1e-4, rtol=1e-4)


def test_a_vit_is_a_backbone() -> None:
    model = randomise(tiny_detr(backbone=tiny_vit(image_size=32))).eval()
    out = model(torch.randn(2, 3, 32, 32))
    assert out.logits.shape == (2, 2, 7, 6)
    assert model.position_tables == {"backbone.position": 1}


def test_a_new_head_is_zero_and_keeps_boxes() -> None:
    model, images = tiny_detr().eval(), torch.randn(1, 3, 64, 64)
    before = model(images)
    model.reset_head(3)
    after = model(images)
    assert after.logits.shape[-1] == 4
    assert not after.logits.any()
    torch.testing.assert_close(after.boxes_cxcywh, before.boxes_cxcywh)


def test_sigmoids_start_low() -> None:
    """Also in a new head, where they are 0.01 to the digit."""
    model, images = tiny_detr(focal=True).eval(), torch.randn(1, 3, 64, 64)
    assert model(images).logits.sigmoid().mean() < 0.05
    model.reset_head(3)
    torch.testing.assert_close(model(images).logits.sigmoid(), torch.full((2, 1, 7, 4), 0.01))


class WithoutMap(torch.nn.Module):
    """An attention that reads its own tokens only."""

    def __init__(self, dim: int, num_heads: int, *, grid: tuple[int, int] | None = None) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": WithoutMap}, "use attention=softmax"),
        ({"position": "rotary"}, "sine and learned"),
        ({"num_heads": 5}, "num_heads must divide dim"),
    ],
)
def test_errors_say_what_to_type(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_detr(**options)


def test_authors_names_have_the_published_pattern() -> None:
    names = export_names(tiny_detr()).keys()
    assert {
        "backbone.0.body.layer2.0.downsample.1.running_var",
        "transformer.encoder.layers.1.self_attn.in_proj_weight",
        "transformer.decoder.layers.0.multihead_attn.out_proj.bias",
        "transformer.decoder.norm.weight",
        "bbox_embed.layers.2.weight",
        "query_embed.weight",
    } <= names
