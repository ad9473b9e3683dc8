"""Every detector in conf/model builds on the meta device, with the published numbers of parameters and GMACs."""

from functools import cache

import pytest
import torch

from vitexp.build import count_macs, count_parameters, make
from vitexp.config.compose import compose, conf_dir
from vitexp.errors import ConfigError

# Of the authors' code, measured: trainable parameters, tensors in the state dict.
PUBLISHED = {
    "detr_r50": (41_302_368, 458),
    "detr_r50_dc5": (41_302_368, 458),
    "detr_r101": (60_242_272, 713),
    "detr_r101_dc5": (60_242_272, 713),
}
DETECTORS = sorted(path.stem for path in (conf_dir() / "model").glob("detr*.yaml"))


@cache
def build(*overrides):
    cfg = compose(overrides)
    with torch.device("meta"):
        return cfg, make(cfg.model)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name):
    cfg, model = build(f"model={name}")
    trainable, whole = count_parameters(model)
    assert (trainable, len(model.state_dict())) == PUBLISHED[name]
    assert whole == cfg.reference.parameters
    assert whole - trainable == 222_400
    assert cfg.reference.ap > 40


@pytest.mark.parametrize("name", ["detr_r50", "detr_r50_dc5"])
def test_cost_is_that_of_the_reference(name):
    cfg, model = build(f"model={name}")
    macs = count_macs(model, (3, *cfg.reference.image_size))
    assert macs / 1e9 == pytest.approx(cfg.reference.gmacs, rel=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["detr_r101", "detr_r101_dc5"])
def test_cost_of_the_larger_ones(name):
    test_cost_is_that_of_the_reference(name)


def test_buffers_of_frozen_norms():
    _, model = build("model=detr_r50")
    assert sum(buffer.numel() for buffer in model.buffers()) == 106_240


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_brings_its_task_and_data(name):
    cfg, model = build(f"model={name}")
    assert (cfg.chosen.task, cfg.chosen.data, cfg.chosen.augment) == ("detect", "coco", "detection")
    assert model.num_classes == 91
    stated = sum(parameter.numel() for parameter in model.parameters())
    header = (conf_dir() / "model" / f"{name}.yaml").read_text().splitlines()[1]
    assert f"{stated:,}" in header or name == "detr"


def test_the_recipe_is_the_authors():
    """Fact sheet, 4.3: AdamW, a tenth for the backbone, everything decays, a step at two thirds of 300 epochs."""
    cfg = compose(["experiment=detr_r50_coco"])
    assert (cfg.optimizer["_target_"], cfg.optimizer.lr, cfg.optimizer.weight_decay) == (
        "torch.optim.AdamW",
        1e-4,
        1e-4,
    )
    assert (cfg.task.backbone_rate, cfg.trainer.clip, cfg.data.batch_size, cfg.epochs) == (0.1, 0.1, 16, 300)
    assert [round(at * cfg.epochs) for at in cfg.schedule.at] == [200]
    assert (cfg.data.image_size, round(cfg.data.longest * cfg.data.image_size), cfg.schedule.gamma) == (800, 1333, 0.1)
    matcher = cfg.task.criterion.matcher
    assert (matcher.class_cost, matcher.l1_cost, matcher.giou_cost) == (1, 5, 2)
    header = (conf_dir() / "experiment" / "detr_r50_coco.yaml").read_text()
    assert "Cost: 28 minutes an epoch" in header
    assert "42.0" in header


@pytest.mark.parametrize("backbone", ["vit_ti16", "vit_s32", "vit_nano"])
def test_any_model_is_a_backbone(backbone):
    _, model = build("model=detr", f"backbone={backbone}", "size=64", "data.num_classes=7")
    out = model.eval()(torch.empty(2, 3, 64, 64, device="meta"))
    assert out.logits.shape == (6, 2, 100, 8)
    assert out.boxes_cxcywh.shape == (6, 2, 100, 4)
    assert model.project.in_channels == model.backbone.features(torch.empty(1, 3, 64, 64, device="meta"))[-1].shape[1]
    assert not any(parameter.requires_grad for parameter in model.backbone.head.parameters())


def test_a_detector_is_no_backbone():
    with pytest.raises(ConfigError, match="is a detector itself"):
        compose(["model=detr", "backbone=detr_r50"])
    with pytest.raises(ConfigError, match="model=vit_ti61 is not known"):
        compose(["model=detr", "backbone=vit_ti61"])
