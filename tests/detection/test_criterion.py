"""The set loss: the fact sheet's golden values, Hugging Face's implementation, processes, the focal variant."""

import math
from typing import Any

import pytest
import torch

from tests.detection.test_matcher import random_case
from vitexp.detection import criterion as module
from vitexp.detection.criterion import Criterion, cardinality_error, class_error
from vitexp.detection.matcher import Matcher


def make(*, focal: bool = False) -> Criterion:
    matcher = Matcher(class_cost=1.0, l1_cost=5.0, giou_cost=2.0, focal=focal)
    return Criterion(matcher=matcher, class_weight=1.0, l1_weight=5.0, giou_weight=2.0, no_object_weight=0.1)


def target(labels: list[int], boxes: list[list[float]]) -> dict[str, torch.Tensor]:
    return {"labels": torch.tensor(labels, dtype=torch.int64), "boxes_cxcywh": torch.tensor(boxes).reshape(-1, 4)}


def test_golden_values() -> None:
    """Measured with the authors' code: zero logits, boxes in the middle, one object and one empty image."""
    logits, boxes = torch.zeros(1, 2, 100, 92), torch.full((1, 2, 100, 4), 0.5)
    targets = [target([3], [[0.5, 0.5, 0.2, 0.2]]), target([], [])]
    loss, parts, _ = make()(logits, boxes, targets)
    assert parts.tolist() == pytest.approx([4.521789, 0.6, 0.84], abs=1e-6)
    assert float(loss) == pytest.approx(4.521789 + 5 * 0.6 + 2 * 0.84, abs=1e-5)
    assert float(parts[0]) == pytest.approx(math.log(92))
    # Zero logits have their first maximum at class 0: all 100 queries see an object, so (99 + 100) / 2.
    assert float(cardinality_error(logits, targets)) == 99.5


def test_a_perfect_answer_costs_nothing() -> None:
    targets = [target([3, 1], [[0.5, 0.5, 0.2, 0.2], [0.3, 0.3, 0.1, 0.4]])]
    logits = torch.full((2, 1, 5, 5), -100.0)
    logits[..., 4] = 100.0
    boxes = torch.rand(2, 1, 5, 4)
    for query, number in ((1, 0), (4, 1)):
        logits[:, 0, query, 4], logits[:, 0, query, targets[0]["labels"][number]] = -100.0, 100.0
        boxes[:, 0, query] = targets[0]["boxes_cxcywh"][number]
    loss, parts, matched = make()(logits, boxes, targets)
    assert float(loss) == pytest.approx(0, abs=1e-5)
    assert parts.abs().max() < 1e-5
    assert float(class_error(logits, targets, matched)) == 0
    assert float(cardinality_error(logits, targets)) == 0


@pytest.mark.parametrize("counts", [[3, 0, 2], [0, 0], [8]])
def test_every_layer_equals_hugging_face(counts: list[int]) -> None:
    from transformers.loss.loss_for_object_detection import HungarianMatcher, ImageLoss

    logits, boxes, targets = random_case(counts, layers=3)
    reference = ImageLoss(
        matcher=HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2),
        num_classes=4,
        eos_coef=0.1,
        losses=["labels", "boxes", "cardinality"],
    )
    labels = [{"class_labels": t["labels"], "boxes": t["boxes_cxcywh"]} for t in targets]
    criterion = make()
    parts = criterion.parts(logits, boxes, targets, criterion.matcher(logits, boxes, targets))
    for layer in range(3):
        theirs: Any = reference({"logits": logits[layer], "pred_boxes": boxes[layer]}, labels)
        expected = torch.stack([theirs[key] for key in ("loss_ce", "loss_bbox", "loss_giou")])
        torch.testing.assert_close(parts[layer], expected)
    torch.testing.assert_close(cardinality_error(logits, targets), theirs["cardinality_error"])


def test_layers_are_matched_and_weighted_alike() -> None:
    logits, boxes, targets = random_case([3, 2], layers=3)
    loss, _, _ = make()(logits, boxes, targets)
    alone = sum(make()(logits[layer][None], boxes[layer][None], targets)[0] for layer in range(3))
    torch.testing.assert_close(loss, alone)


def test_two_processes_give_the_loss_of_one(monkeypatch) -> None:
    """Their mean is the loss of the joined batch, also when they have different numbers of objects and images."""
    logits, boxes, targets = random_case([3, 0, 6, 1])
    whole, whole_parts, _ = make()(logits, boxes, targets)
    halves = [(slice(0, 2), targets[:2]), (slice(2, 4), targets[2:])]

    def divisors(counts: list[int]) -> torch.Tensor:
        matched = sum(min(count, 6) for count in counts)
        return torch.tensor([float(sum(counts)), matched + (len(counts) * 6 - matched) * 0.1])

    mean = (divisors([3, 0]) + divisors([6, 1])) / 2
    monkeypatch.setattr(module, "mean_over_processes", lambda values: mean)
    losses = [make()(logits[:, rows], boxes[:, rows], part) for rows, part in halves]
    torch.testing.assert_close((losses[0][0] + losses[1][0]) / 2, whole)
    torch.testing.assert_close((losses[0][1] + losses[1][1]) / 2, whole_parts)


def test_a_process_that_is_alone_asks_no_other(monkeypatch) -> None:
    logits, boxes, targets = random_case([3, 1])
    expected = make()(logits, boxes, targets)[0]
    asked: list[torch.Tensor] = []
    monkeypatch.setattr(module, "mean_over_processes", lambda values: [asked.append(values), values][1])
    assert torch.equal(make()(logits, boxes, targets, alone=True)[0], expected)
    assert not asked
    make()(logits, boxes, targets)
    assert len(asked) == 1


def test_focal_equals_torchvision_over_the_classes() -> None:
    from torchvision.ops import sigmoid_focal_loss

    logits, boxes, targets = random_case([2, 1], layers=1)
    criterion = make(focal=True)
    matched = criterion.matcher(logits, boxes, targets)
    wanted = torch.zeros(2, 6, 4)
    for image, query, number in matched[1:].T.tolist():
        wanted[image, query, targets[image]["labels"][number]] = 1
    expected = sigmoid_focal_loss(logits[0, ..., :4], wanted, alpha=0.25, gamma=2, reduction="sum") / 3
    torch.testing.assert_close(criterion.parts(logits, boxes, targets, matched)[0, 0], expected)


def test_gradients_are_finite_with_and_without_objects() -> None:
    for counts in ([2, 0], [0, 0]):
        logits, boxes, targets = random_case(counts)
        logits.requires_grad_()
        boxes.requires_grad_()
        make()(logits, boxes, targets)[0].backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        assert boxes.grad is not None
        assert boxes.grad.isfinite().all()


def test_errors_for_the_log_count_the_last_layer() -> None:
    targets = [target([0, 1], [[0.5, 0.5, 0.2, 0.2], [0.3, 0.3, 0.1, 0.1]]), target([2], [[0.5, 0.5, 0.2, 0.2]])]
    answers = torch.tensor([[[0, 1, 3, 3], [2, 3, 3, 3]], [[0, 2, 3, 0], [1, 3, 3, 3]]])  # layers, images, queries
    logits = torch.nn.functional.one_hot(answers, 4).float()
    # Layer, image, query, object: in the last layer the first of three is right.
    matched = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 1, 0, 0, 1], [0, 1, 0, 0, 1, 0], [0, 1, 0, 0, 1, 0]])
    assert float(class_error(logits, targets, matched)) == pytest.approx(200 / 3)
    assert float(class_error(logits, targets, matched[:, :3])) == 0, "nothing matched in the last layer"
    assert float(cardinality_error(logits, targets)) == 0.5  # 3 for 2 objects, 1 for 1
