"""Average precision over processes that have not seen equally many images."""

from typing import Any

import numpy as np
import pytest
import torch

from vitexp.detection.precision import Precision, precision


def images(count: int, *, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Detections near the truth, one image of three empty."""
    generator = torch.Generator().manual_seed(seed)
    found, wanted = [], []
    for number in range(count):
        low = torch.rand(number % 3, 2, generator=generator) * 50
        boxes = torch.cat([low, low + 10 + 30 * torch.rand(len(low), 2, generator=generator)], dim=1)
        labels = torch.randint(3, (len(low),), generator=generator)
        scores = torch.rand(len(low), generator=generator)
        moved = boxes + 4 * torch.randn(boxes.shape, generator=generator)
        found.append({"boxes": moved, "scores": scores, "labels": labels})
        wanted.append({"boxes": boxes, "labels": labels})
    return found, wanted


@pytest.mark.parametrize("counts", [(5, 4), (2, 7), (9, 0)])
def test_two_processes_measure_what_one_does(counts: tuple[int, int], monkeypatch) -> None:
    parts = [images(count, seed=rank) for rank, count in enumerate(counts)]
    metrics = [precision() for _ in counts]
    whole = precision()
    for metric, (found, wanted) in zip(metrics, parts, strict=True):
        if found:
            metric.update(found, wanted)
            whole.update(found, wanted)
    states = [{name: list(getattr(metric, name)) for name in metric._reductions} for metric in metrics]

    def gather(every: list[Any], mine: Any, group: Any = None) -> None:
        every[:] = states

    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group=None: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    expected = whole.compute()
    assert 0 < float(expected["map"]) < 1
    for metric in metrics:
        Precision._sync_dist(metric)
        metric._update_count = 1  # what a process without images has not got
        values = metric.compute()
        assert float(values["map"]) == pytest.approx(float(expected["map"]), abs=1e-7)
        assert float(values["mar_100"]) == pytest.approx(float(expected["mar_100"]), abs=1e-7)


def average(found: list[list[float]], scores: list[float], wanted: list[list[float]]) -> float:
    """Mean average precision of one image of one class."""
    metric = precision()
    zeros = torch.zeros(len(found), dtype=torch.int64)
    metric.update(
        [{"boxes": torch.tensor(found), "scores": torch.tensor(scores), "labels": zeros}],
        [{"boxes": torch.tensor(wanted), "labels": torch.zeros(len(wanted), dtype=torch.int64)}],
    )
    values = metric.compute()
    assert "recall" in values, "the extended summary"
    return float(values["map"])


@pytest.mark.parametrize("width", [50, 55, 60, 65, 70, 75, 80, 85, 90, 95])
def test_an_overlap_that_is_a_threshold_reaches_it(width: int) -> None:
    share = average([[0.0, 0.0, float(width), 100.0]], [0.9], [[0.0, 0.0, 100.0, 100.0]])
    assert share == pytest.approx((width - 45) / 50, abs=1e-6)


def test_a_recall_that_is_a_threshold_reaches_it() -> None:
    """Ten objects, every other detection right: at recall k / 10 the precision is k / (2 k - 1)."""
    objects = [[100.0 * k, 0.0, 100.0 * k + 50, 50.0] for k in range(10)]
    found = [box if right else [5000.0, 0.0, 5050.0, 50.0] for box in objects for right in (True, False)]
    scores = [1 - 0.01 * place for place in range(len(found))]
    reached = [next(k for k in range(1, 11) if k / 10 >= threshold) for threshold in np.linspace(0, 1, 101)]
    expected = sum(k / (2 * k - 1) for k in reached) / 101
    assert average(found, scores, objects) == pytest.approx(expected, abs=1e-6)


def test_the_fast_evaluation_is_used_without_a_warning() -> None:
    assert precision()._coco_backend.backend == "faster_coco_eval"
    assert not precision().warn_on_many_detections


def test_the_group_of_processes_that_is_named_is_asked(monkeypatch) -> None:
    asked: list[Any] = []

    def gather(every: list[Any], mine: Any, group: Any = None) -> None:
        asked.append(group)
        every[:] = [mine]

    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group=None: 1)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    precision()._sync_dist(process_group="these")
    assert asked == ["these"]
