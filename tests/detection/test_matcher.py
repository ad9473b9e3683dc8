"""Matching: SciPy's optimum, batched as one by one, and the odd cases."""

import itertools
import math

import pytest
import torch

from vitexp.detection.box import giou, to_xyxy
from vitexp.detection.matcher import Matcher, Target

MATCHER = Matcher(class_cost=1.0, l1_cost=5.0, giou_cost=2.0)


def random_case(counts: list[int], *, queries: int = 6, layers: int = 2, seed: int = 0) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(layers, len(counts), queries, 5, generator=generator)
    boxes = 0.1 + 0.4 * torch.rand(layers, len(counts), queries, 4, generator=generator)
    targets: list[Target] = [
        {
            "labels": torch.randint(4, (count,), generator=generator),
            "boxes_cxcywh": 0.1 + 0.4 * torch.rand(count, 4, generator=generator),
        }
        for count in counts
    ]
    return logits, boxes, targets


def pairs(matched: torch.Tensor, layer: int, image: int) -> set[tuple[int, int]]:
    rows = matched[:, (matched[0] == layer) & (matched[1] == image)]
    return set(zip(rows[2].tolist(), rows[3].tolist(), strict=True))


def test_cost_is_that_of_the_paper() -> None:
    logits, boxes, targets = random_case([3])
    cost = MATCHER.costs(logits, boxes, targets)[1, 0, 4, 2]
    box, wanted = boxes[1, 0, 4], targets[0]["boxes_cxcywh"][2]
    by_class = -logits[1, 0, 4].softmax(0)[targets[0]["labels"][2]]
    by_hand = by_class + 5 * (box - wanted).abs().sum() - 2 * giou(to_xyxy(box), to_xyxy(wanted))
    torch.testing.assert_close(cost, by_hand)


def test_the_focal_cost_is_that_of_deformable_detr() -> None:
    focal = Matcher(class_cost=2.0, l1_cost=0.0, giou_cost=0.0, focal=True)
    boxes, target = torch.rand(1, 1, 3, 4), {"labels": torch.tensor([1]), "boxes_cxcywh": torch.rand(1, 4)}
    shares = torch.tensor([0.5, 0.8, 0.1])
    logits = torch.stack([torch.zeros(3), shares.logit()], dim=-1)[None, None]
    expected = [  # 2 (0.25 (1 - p)² (-log p) - 0.75 p² (-log (1 - p)))
        2 * (0.25 - 0.75) * 0.25 * math.log(2),
        2 * (0.25 * 0.04 * -math.log(0.8) - 0.75 * 0.64 * -math.log(0.2)),
        2 * (0.25 * 0.81 * -math.log(0.1) - 0.75 * 0.01 * -math.log(0.9)),
    ]
    torch.testing.assert_close(focal.costs(logits, boxes, [target])[0, 0, :, 0], torch.tensor(expected))


def test_the_assignment_is_the_cheapest_of_all() -> None:
    logits, boxes, targets = random_case([3], queries=5, layers=1)
    cost = MATCHER.costs(logits, boxes, targets)[0, 0]
    found = pairs(MATCHER(logits, boxes, targets), 0, 0)
    best = min(itertools.permutations(range(5), 3), key=lambda q: float(sum(cost[q[o], o] for o in range(3))))
    assert found == {(query, number) for number, query in enumerate(best)}


@pytest.mark.parametrize("focal", [False, True])
def test_batched_equals_one_by_one(focal: bool) -> None:
    matcher = Matcher(class_cost=1.0, l1_cost=5.0, giou_cost=2.0, focal=focal)
    logits, boxes, targets = random_case([3, 0, 6, 1])
    together = matcher(logits, boxes, targets)
    for image, layer in itertools.product(range(4), range(2)):
        alone = matcher(logits[layer, image][None, None], boxes[layer, image][None, None], [targets[image]])
        assert pairs(together, layer, image) == pairs(alone, 0, 0)


def test_permuting_queries_permutes_the_answer() -> None:
    logits, boxes, targets = random_case([4])
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    before = pairs(MATCHER(logits, boxes, targets), 0, 0)
    after = pairs(MATCHER(logits[:, :, order], boxes[:, :, order], targets), 0, 0)
    assert {(int(order[query]), number) for query, number in after} == before


def test_nothing_to_match_and_too_much_to_match() -> None:
    logits, boxes, targets = random_case([0, 0])
    assert MATCHER(logits, boxes, targets).shape == (4, 0)
    logits, boxes, targets = random_case([101], queries=100, layers=1)
    matched = MATCHER(logits, boxes, targets)
    assert matched.shape == (4, 100)
    assert len(set(matched[3].tolist())) == 100


def test_a_nan_does_not_stop_the_assignment() -> None:
    logits, boxes, targets = random_case([2])
    logits[0, 0, 0] = torch.nan
    boxes[0, 0, 1] = torch.inf
    assert MATCHER(logits, boxes, targets).shape == (4, 4)
