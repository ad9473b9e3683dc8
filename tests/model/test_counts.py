"""Every file in conf/model builds on the meta device, with the published number of parameters."""

import copy
from functools import cache

import pytest
import torch

from vitexp.build import count_macs, make
from vitexp.config.compose import compose, conf_dir
from vitexp.contract import SupportsFeatures
from vitexp.layer.relative_bias import ContinuousBias

# 1,000 classes at 384 pixels: the authors' models_test.py, re-measured with timm.
AT_384 = {
    "vit_ti16": 5_790_376,
    "vit_s16": 22_196_584,
    "vit_b32": 88_297_192,
    "vit_b16": 86_859_496,
    "vit_l16": 304_715_752,
    "vit_l32": 306_632_680,
}
# The fact sheets' counts with 100 classes.
HUNDRED = {
    "vit_b32": 87_532_132,
    "swinv2": 27_655_054,
    "swinv2_s": 49_036_318,
    "swinv2_b": 86_996_316,
    "swinv2_l": 195_356_632,
    "efficientvit_m0": 2_175_736,
    "efficientvit_m1": 2_806_860,
    "efficientvit_m2": 3_985_054,
    "efficientvit_m3": 6_611_822,
    "efficientvit_m4": 8_457_728,
    "efficientvit_m5": 12_127_272,
}
MEAN_POOLED = {"vit_s16": 22_049_896, "vit_b16": 86_566_120, "vit_s32": 22_878_184, "vit_b32": 88_222_696}


@cache
def composed(name):
    return compose([f"model={name}", "data.channels=3"])


# Detectors have tests/model/test_detr_counts.py.
MODELS = sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml"))
MODELS = [name for name in MODELS if composed(name).chosen.task != "detect"]


def build(name, size, classes, **options):
    cfg = composed(name).copy()
    cfg.data.image_size, cfg.data.num_classes = size, classes
    cfg.model.update(options)
    with torch.device("meta"):
        return make(cfg.model)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", [name for name in MODELS if composed(name).reference.parameters])
def test_count_and_cost_are_those_of_the_reference(name):
    """To the digit, each file states its own; with 100 classes the head has 900 rows and biases less."""
    reference = composed(name).reference
    model = build(name, reference.image_size, 1000)
    assert count(model) == reference.parameters
    hundred = copy.deepcopy(model)
    hundred.reset_head(100)
    *_, last = (module for module in model.head.modules() if isinstance(module, torch.nn.Linear))
    assert count(hundred) == reference.parameters - 900 * (last.in_features + 1) == HUNDRED.get(name, count(hundred))
    macs = count_macs(model, (3, reference.image_size, reference.image_size))
    assert macs / 1e9 == pytest.approx(reference.gmacs, rel=2e-3)
    assert reference.paper
    assert (reference.top1 is None) == (reference.source is None)


@pytest.mark.parametrize("name", AT_384)
def test_published_count_at_384(name):
    assert count(build(name, 384, 1000)) == AT_384[name]


@pytest.mark.parametrize("name", MEAN_POOLED)
def test_published_count_of_mean_pooling(name):
    assert count(build(name, 224, 1000, pool="mean")) == MEAN_POOLED[name]


@pytest.mark.parametrize(("classes", "expected"), [(100, 87_532_132), (21843, 104_252_499)])
def test_published_count_of_heads(classes, expected):
    assert count(build("vit_b32", 224, classes)) == expected


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("vit_nano", "digits", 58_346),
        ("vit_micro", "cifar100", 655_108),
        ("navit_nano", "cifar100", 150_948),
    ],
)
def test_count_that_the_file_states(name, data, expected):
    cfg = compose([f"model={name}", f"data={data}"])
    assert count(make(cfg.model)) == expected
    assert f"{expected:,}" in (conf_dir() / "model" / f"{name}.yaml").read_text()


def official_macs(model, size):
    """As the authors of Swin V2 count: no nets of biases, but one for each output of a norm."""
    macs, norms = count_macs(model, (3, size, size)), []
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.register_forward_hook(lambda module, inputs, output: norms.append(output.numel()))
    model.eval()(torch.empty(1, 3, size, size, device="meta"))
    nets = [module for module in model.modules() if isinstance(module, ContinuousBias)]
    spent = sum(len(net.coordinates) * (net.fc1.weight.numel() + net.fc2.weight.numel()) for net in nets)
    return macs - spent + sum(norms)


@pytest.mark.parametrize(
    ("name", "size", "window", "gmacs"),
    [
        ("swinv2", 256, 16, 6.605),
        *(
            pytest.param(*row, marks=pytest.mark.slow)
            for row in (
                ("swinv2", 256, 8, 5.926),
                ("swinv2_s", 256, 16, 12.647),
                ("swinv2_b", 256, 16, 21.796),
                ("swinv2_b", 384, 24, 54.748),
                ("swinv2_l", 384, 24, 115.417),
            )
        ),
    ],
)
def test_published_cost_of_swin_at_other_windows(name, size, window, gmacs):
    """The fact sheet's, counted by the authors' own code."""
    cfg = composed(name).copy()
    cfg.data.image_size, cfg.data.num_classes, cfg.model.window.size = size, 1000, window
    with torch.device("meta"):
        model = make(cfg.model)
    assert count(model) == cfg.reference.parameters
    assert official_macs(model, size) / 1e9 == pytest.approx(gmacs, abs=1e-3)


@pytest.mark.parametrize("size", [8, 32, 224])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_runs_at_every_size(name, size):
    model = build(name, size, 7).eval()
    images = torch.empty(2, 3, size, size, device="meta")
    assert model(images).shape == (2, 7)
    if not isinstance(model, SupportsFeatures):
        assert name in ("timm", "torchvision")  # which take models of any kind
        return
    (*_, last) = model.features(images)
    assert last.shape[0] == 2
    assert last.shape[2] == -(-size // model.strides[-1])  # an odd map halves upwards
