"""Average precision over processes that have not seen equally many images."""

from typing import Any

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
