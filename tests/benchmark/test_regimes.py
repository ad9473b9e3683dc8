"""Regimes and joined tasks are timed on one model, and the memory of a step is what its backward pass needs."""

from functools import partial

import torch
from torch import nn

from tests.commands import command
from vitexp.benchmark.model import class_loss
from vitexp.benchmark.regimes import _kept_bytes, time_regimes

SMALL = ["model=vit_nano", "model.pool=token", "data=fake", "bs=2", "benchmark.repeats=1"]


def test_every_contender_has_its_row_and_ratio() -> None:
    report = time_regimes(command(*SMALL))
    names = [row[1] for row in report.rows]
    assert names[:4] == ["head", "memory_masked", "memory", "full"]
    joined = [f"{name}{what}" for name in ("1 task", "4 tasks", "10 tasks") for what in (" joined", " and the base's")]
    assert names[4:] == ["base", *joined, "4 separate models", "10 separate models"]
    assert report.ratios["step of head over head"] == 1.0
    assert report.ratios["10 separate models over base"] > 0
    assert all(len(row) == len(report.columns) for row in report.rows)
    kept = {row[1]: row[-1] for row in report.rows}
    assert kept["head"] < kept["memory_masked"] < kept["memory"] <= kept["full"]


def test_kept_memory_is_that_of_saved_activations() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(1_000, 500, bias=False), nn.ReLU(), nn.Linear(500, 2, bias=False))
    images, labels = torch.randn(1_000, 1_000), torch.zeros(1_000, dtype=torch.long)
    megabytes = _kept_bytes(model, partial(class_loss, model, images, labels))
    # The input, the output of ReLU, and little else: 4 MB and 2 MB.
    assert 6.0 <= megabytes < 6.2
