"""Detection: COCO's twelve numbers against pycocotools, the loss that trains, optimizer groups, padding by size."""

import contextlib
import io
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from tests.tiny_detr import padded_batch, tiny_detr
from vitexp.detection.criterion import Criterion
from vitexp.detection.matcher import Matcher
from vitexp.detection.precision import precision as metric_of_coco
from vitexp.errors import ConfigError
from vitexp.optim.group import backbone_groups
from vitexp.optim.schedule import step
from vitexp.task.detect import NUMBERS, Detect, per_class


def make(model: nn.Module, *, groups: int = 0) -> Detect:
    matcher = Matcher(class_cost=1.0, l1_cost=5.0, giou_cost=2.0)
    return Detect(
        model=model,
        optimizer=partial(torch.optim.AdamW, lr=1e-4, weight_decay=1e-4),
        schedule=partial(step, warmup="0%", at=[0.5], gamma=0.1),
        num_classes=5,
        criterion=Criterion(matcher=matcher, class_weight=1.0, l1_weight=5.0, giou_weight=2.0, no_object_weight=0.1),
        backbone_rate=0.1,
        denoising={"groups": groups, "box_noise": 0.4, "label_noise": 0.2},
    )


def random_detections(images: int, classes: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Truth with crowds and segment areas, and detections near it, among them false ones."""
    generator = torch.Generator().manual_seed(0)
    found, wanted = [], []
    for image in range(images):
        count = int(torch.randint(0, 9, (), generator=generator))
        low = torch.rand(count, 2, generator=generator) * 400
        boxes = torch.cat([low, low + 8 + torch.rand(count, 2, generator=generator) ** 2 * 220], dim=1)
        labels = torch.randint(1, classes, (count,), generator=generator)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1) * 0.6
        crowd = (torch.rand(count, generator=generator) < 0.15).long()
        wanted.append({"boxes": boxes, "labels": labels, "area": area, "iscrowd": crowd})
        more = torch.rand(4, 4, generator=generator) * 200
        more[:, 2:] += more[:, :2]
        every = torch.cat([boxes + torch.randn(count, 4, generator=generator) * 6, more])
        every = every if image % 5 else every[:0]
        guesses = torch.cat([labels, torch.randint(1, classes, (4,), generator=generator)])
        scores = torch.rand(len(every), generator=generator)
        found.append({"boxes": every, "labels": guesses[: len(every)], "scores": scores})
    return found, wanted


def by_pycocotools(found: list[dict[str, Any]], wanted: list[dict[str, Any]], classes: int) -> tuple[list[float], Any]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def rows(image: int, values: dict[str, Any], *keys: str) -> list[dict[str, Any]]:
        boxes = torch.cat([values["boxes"][:, :2], values["boxes"][:, 2:] - values["boxes"][:, :2]], dim=1).tolist()
        columns = [values[key].tolist() for key in keys]
        names = ["category_id", *keys[1:]]
        return [
            {"image_id": image, "bbox": box, **dict(zip(names, cells, strict=True))}
            for box, *cells in zip(boxes, *columns, strict=True)
        ]

    truth = COCO()
    annotations = [row for i, values in enumerate(wanted) for row in rows(i, values, "labels", "area", "iscrowd")]
    truth.dataset = {
        "info": {},
        "images": [{"id": image} for image in range(len(wanted))],
        "annotations": [{"id": number, **row} for number, row in enumerate(annotations, start=1)],
        "categories": [{"id": label} for label in range(1, classes)],
    }
    results = [
        {"score" if key == "scores" else key: value for key, value in row.items()}
        for i, values in enumerate(found)
        for row in rows(i, values, "labels", "scores")
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist(), evaluation.eval["precision"]


def test_the_twelve_numbers_and_each_class_equal_pycocotools() -> None:
    found, wanted = random_detections(30, 6)
    metric = metric_of_coco()
    metric.update(found, wanted)
    values = metric.compute()
    stats, precision = by_pycocotools(found, wanted, 6)
    # pycocotools: AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl, which is our order too.
    assert [float(values[name]) for name in NUMBERS] == pytest.approx(stats, abs=1e-6)
    assert stats[0] > 0.05
    each = per_class(values, 6)
    assert torch.isnan(each[0])
    for label in range(1, 6):
        curve = precision[:, :, label - 1, 0, -1]
        assert float(each[label]) == pytest.approx(float(curve[curve > -1].mean()), abs=1e-6)


def test_classes_without_objects_have_no_precision() -> None:
    metric = metric_of_coco()
    box = torch.tensor([[1.0, 1.0, 9.0, 9.0]])
    metric.update(
        [{"boxes": box, "scores": torch.tensor([0.9]), "labels": torch.tensor([2])}],
        [{"boxes": box, "labels": torch.tensor([2])}],
    )
    each = per_class(metric.compute(), 4)
    assert float(each[2]) == pytest.approx(1.0)
    assert torch.isnan(each[[0, 1, 3]]).all()


def targets(sizes: list[list[int]]) -> list[dict[str, Any]]:
    return [
        {
            "size": torch.tensor(size),
            "labels": torch.tensor([1]),
            "boxes_cxcywh": torch.tensor([[0.5, 0.5, 0.4, 0.4]]),
            "original_size": torch.tensor([50, 100]),
        }
        for size in sizes
    ]


def test_sizes_in_the_targets_become_the_mask_and_boxes_are_in_original_pixels() -> None:
    task = make(tiny_detr()).eval()
    images, padding = padded_batch()
    wanted = targets([[96, 128], [64, 96]])
    with torch.no_grad():
        by_task = task(images, wanted)
        torch.testing.assert_close(by_task.logits, task.model(images, padding).logits)
        found, _ = task.predict_step((images, wanted), 0)
    centre, size = by_task.boxes_cxcywh[-1, 0].split(2, dim=1)
    corners = torch.cat([centre - size / 2, centre + size / 2], dim=1) * torch.tensor([100, 50, 100, 50])
    torch.testing.assert_close(found["boxes_xyxy"], corners)


def test_a_few_steps_lower_the_loss() -> None:
    task, images = make(tiny_detr()).train(), torch.randn(2, 3, 64, 64)
    optimizer = torch.optim.AdamW(task.groups(lr=1e-3, weight_decay=1e-4))
    losses = []
    for _ in range(12):
        loss = task.training_step((images, targets([[64, 64], [64, 64]])), 0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert task._sums is not None
    assert float(task._sums[0] / task._sums[-1]) == pytest.approx(sum(losses) / 12, rel=1e-5)


def test_denoising_changes_nothing_but_training() -> None:
    """The model has no tensor more, and its evaluation is that of the task without it, to the bit."""
    plain, denoising = make(tiny_detr()).eval(), make(tiny_detr(), groups=2).eval()
    assert list(plain.model.state_dict()) == list(denoising.model.state_dict())
    images, _ = padded_batch()
    wanted = targets([[96, 128], [64, 96]])
    with torch.no_grad():
        for ours, theirs in zip(plain(images, wanted), denoising(images, wanted), strict=True):
            assert torch.equal(ours, theirs)
    torch.manual_seed(0)
    losses = [task.training_step((images, wanted), 0)["loss"].item() for task in (plain, denoising)]
    assert losses[1] > losses[0] + 1
    assert denoising._sums is not None
    # The mean beside the others is what was added.
    assert float(denoising._sums[-2] / 2) == pytest.approx(losses[1] - losses[0], rel=1e-4)
    assert denoising.means[-1] == "train/denoising"
    backbone, rest, more = denoising.groups(lr=1e-4, weight_decay=1e-4)
    assert more["lr"] == rest["lr"] > backbone["lr"]
    assert {name.split(".")[0] for name in more["names"]} == {"denoising"}
    assert len(more["params"]) == len(list(denoising.denoising.parameters()))  # type: ignore[union-attr]


def test_two_groups_with_a_tenth_of_the_rate_for_the_backbone() -> None:
    model = tiny_detr()
    backbone, rest = make(model).groups(lr=1e-4, weight_decay=1e-4)
    assert (backbone["lr"], rest["lr"]) == (pytest.approx(1e-5), 1e-4)
    assert backbone["weight_decay"] == rest["weight_decay"] == 1e-4
    assert all(name.startswith(("backbone.layer2", "backbone.layer3", "backbone.layer4")) for name in backbone["names"])
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert set(backbone["names"]) | set(rest["names"]) == trainable
    with pytest.raises(ValueError, match="no parameter is trainable"):
        backbone_groups(model.requires_grad_(False), lr=1.0, weight_decay=0.0, backbone_rate=0.1)


def test_steps_of_the_rate() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = step(optimizer, 12, 1, warmup="0%", at=[0.75, 0.5], gamma=0.1)
    rates = []
    for _ in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([1.0] * 6 + [0.1] * 3 + [0.01] * 3)


def test_a_classifier_is_refused() -> None:
    with pytest.raises(ConfigError, match="use model=detr_r50"):
        make(nn.Linear(2, 2))
