"""Detectors beside Hugging Face's DETR: the same outputs and losses before any time is taken."""

import pytest
import torch

from tests.commands import command
from tests.tiny_detr import tiny_detr, tiny_resnet
from vitexp.benchmark import detector
from vitexp.benchmark.model import time_model
from vitexp.detection.criterion import Criterion
from vitexp.detection.matcher import Matcher
from vitexp.errors import ConfigError

SMALL = ["benchmark.repeats=1", "model.depths=[1,1]", "model.dim=32", "model.mlp_dim=32", "model.num_queries=5"]


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["model=detr_r50", "size=64", "against=hf"], marks=pytest.mark.slow, id="hf"),
        pytest.param(["model=detr_nano", "size=64", "against=none"], id="none"),
    ],
)
def test_a_detector_is_timed(words: list[str]) -> None:
    report = time_model(command(*words, *SMALL))
    names = ["hf", "plain", "vitexp"] if "against=hf" in words else ["plain", "vitexp"]
    assert [row[:2] for row in report.rows] == [(w, n) for w in ("forward", "training step") for n in names]
    assert report.title.startswith("detr_r50, 64 × 85" if "hf" in names else "detr_nano, 64 × 64")
    assert all(len(row) == len(report.columns) for row in report.rows)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=detr_nano", "against=hf"], "model=detr_r50 or detr_r101 with against=hf"),
        (["model=detr_nano"], "against=timm has no model=detr_nano"),
        (["model=vit_nano", "against=hf"], "is for detectors"),
    ],
)
def test_what_has_no_equal_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        time_model(command(*words, "size=64", *(SMALL if "detr" in words[0] else [])))


def test_another_model_is_not_timed() -> None:
    model = tiny_detr(backbone=tiny_resnet(blocks=2)).eval()
    peer = detector.hugging_face(model)
    criterion = Criterion(
        matcher=Matcher(class_cost=1.0, l1_cost=5.0, giou_cost=2.0),
        class_weight=1.0,
        l1_weight=5.0,
        giou_weight=2.0,
        no_object_weight=0.1,
    )
    models = {"hf": peer, "ours": model}
    calls = {"hf": detector._theirs(peer), "ours": detector._ours(criterion, model)}
    images, targets = torch.randn(1, 3, 64, 64), detector._targets(1, 5, torch.device("cpu"))
    detector.require_equal(models, calls, images, targets)
    model.queries.data += 1
    with pytest.raises(ConfigError, match="ours and hf differ by"):
        detector.require_equal(models, calls, images, targets)
