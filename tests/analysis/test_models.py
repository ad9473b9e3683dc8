"""Analyses on the models there are: each either measures finite values, or refuses in three parts."""

import math

import pytest
import torch

from tests.analysis.subjects import subject
from vitexp import build
from vitexp.analysis.amplitude import Amplitude
from vitexp.analysis.distance import Cells, Distance
from vitexp.analysis.heads import HeadSimilarity
from vitexp.analysis.rollout import Rollout
from vitexp.analysis.similarity import Similarity
from vitexp.config.compose import compose
from vitexp.errors import ConfigError

MODELS = {
    "swin": ["model=swinv2", "model.dim=24", "model.depths=[2,2]", "model.num_heads=[2,2]", "size=32"],
    "deepvit": ["model=deepvit_16b", "model.dim=24", "model.depth=2", "model.num_heads=2", "size=16"],
    "efficientvit": ["model=efficientvit_m0", "size=32"],
    "mobilevit": ["model=mobilevit_xxs", "size=32"],
    "mobilevitv2": ["model=mobilevitv2_050", "size=32"],
}
ANALYSES = {
    "similarity": Similarity(tau=0.5, block_ratio=0.8, nearest=2),
    "distance": Distance(renormalise=False),
    "heads": HeadSimilarity(),
    "amplitude": Amplitude(),
    "rollout": Rollout(block=-1),
}
REFUSED = {
    ("swin", "rollout"): "use a ViT or DeepViT",
    ("efficientvit", "rollout"): "use a ViT or DeepViT",
    ("mobilevit", "rollout"): "use a ViT or DeepViT",
    **{("mobilevitv2", word): "use a model with attention=softmax" for word in ANALYSES if word != "amplitude"},
}


@pytest.mark.parametrize("name", MODELS)
def test_every_analysis_measures_or_refuses(name: str) -> None:
    cfg = compose([*MODELS[name], "data=fake"])
    model = build.build_model(cfg)
    looked = subject(model, count=2, size=cfg.data.image_size)
    for word, analysis in ANALYSES.items():
        if said := REFUSED.get((name, word)):
            with pytest.raises(ConfigError, match=said):
                analysis.measure(looked)
            continue
        values = analysis.summary(analysis.measure(looked))
        assert values, word
        assert all(math.isfinite(value) for value in values.values()), (word, values)


def test_reattention_shows_both_maps_named() -> None:
    model = build.build_model(compose([*MODELS["deepvit"], "data=fake"]))
    analysis = ANALYSES["similarity"]
    values = analysis.summary(analysis.measure(subject(model, count=2)))
    assert {"softmax/adjacent_cosine", "mixed/adjacent_cosine"} <= values.keys()
    assert values["softmax/adjacent_cosine"] > 0.9, "an untrained softmax map is nearly uniform"
    assert values["mixed/adjacent_cosine"] != pytest.approx(values["softmax/adjacent_cosine"], abs=1e-3)
    before = {name: tensor.clone() for name, tensor in model.named_buffers()}
    analysis.measure(subject(model, count=2))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.named_buffers()), "statistics stay"


def test_interleaved_sets_cover_the_whole_image() -> None:
    """MobileViT's four sets of 4 x 4 over 32 pixels: neighbours of a set are 8 pixels apart, not 4."""
    model = build.build_model(compose([*MODELS["mobilevit"], "data=fake"]))
    step = torch.zeros(16, 16)
    for cell in range(16):
        step[cell, cell + 1 if cell % 4 < 3 else cell - 1] = 1
    weights = step.expand(4, 2, 16, 16)
    pixels = Cells(model, weights, (32, 32)).mean_distance(weights, renormalise=False)
    torch.testing.assert_close(pixels, torch.full((2,), 8.0))
