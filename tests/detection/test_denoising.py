"""Query denoising: who sees whom, what noise does, a loss without matching, and a model that does not notice."""

from typing import Any

import pytest
import torch

from tests.detection.test_criterion import make as make_criterion
from tests.detection.test_criterion import target
from tests.tiny import randomise
from tests.tiny_detr import padded_batch, tiny_detr
from vitexp.detection.denoising import Denoising
from vitexp.errors import ConfigError

TARGETS = [
    target([1, 3], [[0.4, 0.5, 0.3, 0.2], [0.7, 0.2, 0.1, 0.3]]),
    target([0], [[0.5, 0.5, 0.9, 0.8]]),
    target([], []),
]


def make(**options: Any) -> Denoising:
    torch.manual_seed(0)
    settings = {"dim": 32, "num_classes": 5, "groups": 3, "box_noise": 0.4, "label_noise": 0.2}
    return Denoising(**(settings | options))


def test_own_queries_see_themselves_and_each_group_itself_and_them() -> None:
    """Written out for 2 own queries and 2 groups of 2 slots; the second image has one object, the third none."""
    mask = make(groups=2).mask(TARGETS, 2)
    assert mask.shape == (3, 1, 6, 6)
    own, first, second = [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 1, 1]
    assert mask[0, 0].int().tolist() == [own, own, first, first, second, second]
    first, second = [1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 1, 0]
    assert mask[1, 0].int().tolist() == [own, own, first, first, second, second]
    assert mask[2, 0].int().tolist() == [own] * 6


def test_own_queries_answer_as_if_alone() -> None:
    """And a group as if it were the only one, whatever the others hold: nothing of an object leaks."""
    model, (images, padding) = randomise(tiny_detr(refine_boxes=True)).eval(), padded_batch()
    denoising, wanted = make(box_noise=0.0, label_noise=0.0), TARGETS[:2]
    queries = denoising(wanted, 7)
    alone, both = model(images, padding), model(images, padding, queries)
    torch.testing.assert_close(both.logits[:, :, :7], alone.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(both.boxes_cxcywh[:, :, :7], alone.boxes_cxcywh, atol=1e-5, rtol=1e-5)
    disturbed = queries.x.clone()
    disturbed[:, 2:4] += 1.0  # the second group
    disturbed[1, 1] += 1.0  # a slot of the first without an object
    other = model(images, padding, queries._replace(x=disturbed))
    for answers, before in zip(other, both, strict=True):
        torch.testing.assert_close(answers[:, 0, [*range(9), 11, 12]], before[:, 0, [*range(9), 11, 12]])
        torch.testing.assert_close(answers[:, 1, 7], before[:, 1, 7])
        assert not torch.allclose(answers[:, 0, 9], before[:, 0, 9])


def test_without_noise_each_group_holds_the_objects() -> None:
    labels, boxes = torch.tensor([[1, 3]]), TARGETS[0]["boxes_cxcywh"][None]
    same_labels, same_boxes = make(box_noise=0.0, label_noise=0.0).noised(labels, boxes)
    assert torch.equal(labels, same_labels)
    assert torch.equal(boxes, same_boxes)
    queries = make(box_noise=0.0, label_noise=0.0)(TARGETS, 4)
    for part in (queries.x, queries.position):
        assert part.shape == (3, 6, 32)
        assert torch.equal(part[:, :2], part[:, 4:])
        assert not torch.equal(part[0, 0], part[0, 1])


def test_noise_is_as_large_as_said_and_repeats_with_the_seed() -> None:
    denoising = make(box_noise=0.5, label_noise=0.25)
    labels, boxes = torch.full((1, 4000), 2), torch.tensor([0.5, 0.5, 0.4, 0.2]).repeat(1, 4000, 1)
    torch.manual_seed(3)
    noised_labels, noised_boxes = denoising.noised(labels, boxes)
    # A random label is the right one in one of five cases.
    assert float((noised_labels != 2).float().mean()) == pytest.approx(0.25 * 4 / 5, abs=0.03)
    away = (noised_boxes - boxes).abs().amax((0, 1))
    torch.testing.assert_close(away, torch.tensor([0.1, 0.05, 0.2, 0.1]), atol=1e-3, rtol=0)
    assert float((noised_boxes - boxes).mean((0, 1)).abs().max()) < 5e-3
    torch.manual_seed(3)
    again = denoising.noised(labels, boxes)
    assert torch.equal(again[0], noised_labels)
    assert torch.equal(again[1], noised_boxes)


@pytest.mark.parametrize("focal", [False, True])
def test_the_loss_is_that_of_each_object_with_its_own_query(focal: bool) -> None:
    """By the criterion's own sums over one query after another, matched by hand; slots without objects do not count."""
    criterion, denoising = make_criterion(focal=focal), make(groups=2)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 6, generator=generator)
    boxes = 0.2 + 0.3 * torch.rand(2, 3, 4, 4, generator=generator)
    loss = denoising.loss(logits, boxes, TARGETS, criterion)
    total = 0.0
    for layer in range(2):
        for image, slots in ((0, [0, 1, 2, 3]), (1, [0, 2])):
            for number, slot in enumerate(slots):
                of = number % len(TARGETS[image]["labels"])
                one = [{name: value[of][None] for name, value in TARGETS[image].items()}]
                here = logits[layer, image, slot][None, None, None], boxes[layer, image, slot][None, None, None]
                total += float(criterion.weigh(criterion.parts(*here, one, torch.zeros(4, 1, dtype=torch.int64))))
    assert float(loss) == pytest.approx(total / 6, rel=1e-5)
    empty = denoising.loss(logits[:, 2:, :2], boxes[:, 2:, :2], TARGETS[2:], criterion)
    assert float(empty) == 0


@pytest.mark.parametrize("wanted", [TARGETS[:2], [TARGETS[2], TARGETS[2]]], ids=["objects", "none"])
def test_every_tensor_has_a_gradient(wanted: list[Any]) -> None:
    """Also where a batch has no object: processes that train together wait for all of them."""
    model, denoising, criterion = tiny_detr().train(), make(), make_criterion()
    images, padding = padded_batch()
    logits, boxes = model(images, padding, denoising(wanted, 7))
    loss = denoising.loss(logits[:, :, 7:], boxes[:, :, 7:], wanted, criterion)
    loss.backward()
    assert loss.isfinite()
    for name, parameter in denoising.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()) == bool(len(wanted[0]["labels"])), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box_noise": 1.5}, "box_noise=1.5 is no share"),
        ({"label_noise": -0.1}, "it goes from 0 to 1"),
        ({"groups": -1}, "use task.denoising.groups=5"),
        ({"dim": 36}, "multiple of 8"),
    ],
)
def test_errors_say_what_to_type(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**options)
