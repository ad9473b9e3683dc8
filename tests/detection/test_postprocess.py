"""Queries to detections, and the padding mask."""

import torch

from vitexp.detection.padding import padding_of
from vitexp.detection.postprocess import detections


def test_every_query_is_a_detection_of_a_real_class() -> None:
    logits = torch.zeros(2, 3, 5)
    logits[:, :, 4] = 9.0  # no object, which is never an answer
    logits[0, 1, 2] = 4.0
    boxes = torch.tensor([0.5, 0.5, 0.5, 1.0]).expand(2, 3, 4)
    found = detections(logits, boxes, [torch.tensor([100, 200]), torch.tensor([10, 10])])
    assert found[0]["labels"].tolist() == [0, 2, 0]
    assert float(found[0]["scores"][1]) == float(logits[0, 1].softmax(0)[2])
    assert found[0]["boxes_xyxy"][0].tolist() == [50.0, 0.0, 150.0, 100.0]
    assert found[1]["boxes_xyxy"][0].tolist() == [2.5, 0.0, 7.5, 10.0]


def test_focal_keeps_the_best_pairs() -> None:
    logits = torch.full((1, 3, 3), -9.0)
    logits[0, 1, 0], logits[0, 1, 1], logits[0, 2, 2] = 3.0, 2.0, 9.0  # the last logit is no class
    found = detections(logits, torch.rand(1, 3, 4), [torch.tensor([4, 4])], focal=True)[0]
    assert found["labels"][:2].tolist() == [0, 1]
    assert found["queries"][:2].tolist() == [1, 1]
    torch.testing.assert_close(found["scores"][:2], torch.tensor([3.0, 2.0]).sigmoid())
    assert len(found["scores"]) == 6


def test_padding_is_right_and_below() -> None:
    padding = padding_of([torch.tensor([2, 3]), torch.tensor([1, 1])], (2, 3))
    assert padding is not None
    assert padding.tolist() == [[[False] * 3] * 2, [[False, True, True], [True] * 3]]
    assert padding_of([torch.tensor([2, 3])] * 2, (2, 3)) is None
