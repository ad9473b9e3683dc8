"""Every file in conf/model builds on the meta device, with the published number of parameters."""

from functools import cache

import pytest
import torch
from hydra.utils import instantiate

from vitexp.config import compose, conf_dir

# 1,000 classes at 224 and 384 pixels: the authors' models_test.py, re-measured with timm.
PUBLISHED = {
    ("vit_ti16", 224): 5_717_416,
    ("vit_s32", 224): 22_878_952,
    ("vit_s16", 224): 22_050_664,
    ("vit_b32", 224): 88_224_232,
    ("vit_b16", 224): 86_567_656,
    ("vit_b8", 224): 86_576_872,
    ("vit_l32", 224): 306_535_400,
    ("vit_l16", 224): 304_326_632,
    ("vit_h14", 224): 632_045_800,
    ("vit_ti16", 384): 5_790_376,
    ("vit_s16", 384): 22_196_584,
    ("vit_b32", 384): 88_297_192,
    ("vit_b16", 384): 86_859_496,
    ("vit_l16", 384): 304_715_752,
    ("vit_l32", 384): 306_632_680,
}
MEAN_POOLED = {"vit_s16": 22_049_896, "vit_b16": 86_566_120, "vit_s32": 22_878_184, "vit_b32": 88_222_696}
MODELS = sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml"))


@cache
def composed(name):
    return compose([f"model={name}", "data.channels=3"])


def build(name, size, classes, **options):
    cfg = composed(name).copy()
    cfg.data.image_size, cfg.data.num_classes = size, classes
    cfg.model.update(options)
    with torch.device("meta"):
        return instantiate(cfg.model, _convert_="all")


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("name", "size"), PUBLISHED, ids=lambda value: str(value))
def test_published_count(name, size):
    assert count(build(name, size, 1000)) == PUBLISHED[name, size]


@pytest.mark.parametrize("name", MEAN_POOLED)
def test_published_count_of_mean_pooling(name):
    assert count(build(name, 224, 1000, pool="mean")) == MEAN_POOLED[name]


@pytest.mark.parametrize(("classes", "expected"), [(100, 87_532_132), (21843, 104_252_499)])
def test_published_count_of_heads(classes, expected):
    assert count(build("vit_b32", 224, classes)) == expected


@pytest.mark.parametrize(
    ("name", "data", "expected"), [("vit_nano", "digits", 58_346), ("vit_micro", "cifar100", 1_329_092)]
)
def test_count_that_the_file_states(name, data, expected):
    cfg = compose([f"model={name}", f"data={data}"])
    assert count(instantiate(cfg.model, _convert_="all")) == expected
    assert f"{expected:,}" in (conf_dir() / "model" / f"{name}.yaml").read_text()


@pytest.mark.parametrize("size", [8, 32, 224])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_runs_at_every_size(name, size):
    model = build(name, size, 7).eval()
    images = torch.empty(2, 3, size, size, device="meta")
    assert model(images).shape == (2, 7)
    (*_, last) = model.features(images)
    assert last.shape[0] == 2
    assert last.shape[2] * model.strides[-1] == size
