"""Losses and metrics of classification against hand-computed values, and every optimizer of the configuration."""

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.commands import command
from tests.tiny import tiny_vit
from vitexp import build
from vitexp.errors import ConfigError
from vitexp.optim.schedule import constant
from vitexp.task.classify import Classify


class Given(nn.Module):
    """A model whose logits are its images."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, 1)

    def forward(self, images: Tensor) -> Tensor:
        return images


def classify(model: nn.Module | None = None, **changes: Any) -> Classify:
    settings: dict[str, Any] = {
        "model": model or Given(),
        "optimizer": partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.0),
        "schedule": partial(constant, warmup="0%"),
        "num_classes": 3,
        "loss": "softmax",
        "label_smoothing": 0.0,
        "layer_decay": 1.0,
    }
    return Classify(**{**settings, **changes})


LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5]])
LABELS = torch.tensor([0, 2])


def by_hand(targets: list[list[float]]) -> float:
    """Mean of -sum t log softmax."""
    total = 0.0
    for row, target in zip(LOGITS.tolist(), targets, strict=True):
        norm = math.log(sum(math.exp(value) for value in row))
        total -= sum(t * (value - norm) for t, value in zip(target, row, strict=True))
    return total / len(LOGITS)


def test_cross_entropy() -> None:
    assert classify().criterion(LOGITS, LABELS).item() == pytest.approx(by_hand([[1, 0, 0], [0, 0, 1]]), rel=1e-6)


def test_smoothing_and_soft_targets_agree() -> None:
    smoothed = classify(label_smoothing=0.3).criterion(LOGITS, LABELS).item()
    assert smoothed == pytest.approx(by_hand([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]), rel=1e-6)
    soft = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    assert classify().criterion(LOGITS, soft).item() == pytest.approx(smoothed, rel=1e-6)


def test_binary_cross_entropy_is_summed_over_classes() -> None:
    targets = [[1, 0, 0], [0, 0, 1]]
    total = 0.0
    for row, target in zip(LOGITS.tolist(), targets, strict=True):
        for value, t in zip(row, target, strict=True):
            share = 1 / (1 + math.exp(-value))
            total -= math.log(share if t else 1 - share)
    assert classify(loss="sigmoid").criterion(LOGITS, LABELS).item() == pytest.approx(total / 2, rel=1e-6)


def test_binary_probabilities_keep_their_order_and_sum_to_one() -> None:
    shares = classify(loss="sigmoid").predict_step(LOGITS, 0)
    assert torch.allclose(shares.sum(1), torch.ones(2))
    assert torch.equal(shares.argsort(1), LOGITS.argsort(1))


def test_an_unknown_loss_names_the_known() -> None:
    with pytest.raises(ConfigError, match="use softmax or sigmoid"):
        classify(loss="hinge")


def evaluate(task: Classify, batches: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
    logged: dict[str, float] = {}
    task.log_epoch = logged.update  # type: ignore[method-assign]
    for index, batch in enumerate(batches):
        task.test_step(batch, index)
    task.on_test_epoch_end()
    return logged


def test_metrics_by_hand() -> None:
    images = torch.tensor([[9.0, 0, 0], [0, 9.0, 0], [0, 9.0, 0], [9.0, 0, 0]])
    task = classify()
    metrics = evaluate(task, [(images[:3], torch.tensor([0, 1, 2])), (images[3:], torch.tensor([0]))])
    assert metrics["test/top1"] == pytest.approx(0.75)
    assert metrics["test/top5"] == 1.0  # of three classes, all are among the first three
    sure = math.exp(9) / (math.exp(9) + 2)
    assert metrics["test/ece"] == pytest.approx(sure - 0.75, abs=1e-5)
    assert metrics["test/loss"] == pytest.approx(-(3 * math.log(sure) + math.log((1 - sure) / 2)) / 4, rel=1e-4)
    assert task.per_class.tolist() == [1.0, 1.0, 0.0]


def test_any_of_several_right_answers_counts_and_none_is_not_scored() -> None:
    """ImageNet ReaL."""
    images = torch.tensor([[9.0, 0, 0], [0, 9.0, 0], [0, 0, 9.0]])
    answers = torch.tensor([[True, True, False], [True, False, True], [False, False, False]])
    metrics = evaluate(classify(), [(images, answers)])
    assert metrics["test/top1"] == 0.5


def test_an_epoch_without_any_answer_in_a_batch_goes_on() -> None:
    images = torch.tensor([[9.0, 0, 0]])
    nothing, first = torch.zeros(1, 3, dtype=torch.bool), torch.tensor([[True, False, False]])
    assert evaluate(classify(), [(images, nothing), (images, first)])["test/top1"] == 1.0


def test_what_is_evaluated_may_be_another_model_than_what_trains() -> None:
    task, before = classify(), set(classify().state_dict())
    task.evaluated = nn.Linear(3, 3)
    nn.init.zeros_(task.evaluated.weight)
    nn.init.constant_(task.evaluated.bias, 7.0)
    assert task(LOGITS).eq(7.0).all()
    assert task.model(LOGITS).equal(LOGITS)
    assert len(list(task.parameters())) == 2, "the copy is no part of the task: not trained, not in a checkpoint twice"
    assert set(task.state_dict()) == before
    task.evaluated = None
    assert task(LOGITS).equal(LOGITS)


def test_it_learns_four_images_by_heart() -> None:
    torch.manual_seed(0)
    task = classify(tiny_vit(num_classes=4), num_classes=4)
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-2)
    images, labels = torch.randn(4, 3, 16, 16), torch.arange(4)
    for step in range(40):
        optimizer.zero_grad()
        loss = task.training_step((images, labels), step)["loss"]
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


@pytest.mark.parametrize("name", ["adamw", "adam", "nadam", "sgd", "lamb", "lion"])
def test_every_optimizer_lowers_the_loss_on_decaying_and_other_groups(name: str) -> None:
    cfg = command("model=vit_nano", "data=fake", "size=8", f"optimizer={name}", "task.layer_decay=0.5").cfg
    task = build.build_task(cfg, build.build_model(cfg))
    task._trainer = SimpleNamespace(estimated_stepping_batches=10, max_epochs=1)
    optimizer = task.configure_optimizers()["optimizer"]
    decays = {group["weight_decay"] for group in optimizer.param_groups}
    assert decays == {0.0, cfg.optimizer.weight_decay}
    rates = {group["initial_lr"] for group in optimizer.param_groups}
    assert rates == {cfg.optimizer.lr * 0.5**layer for layer in range(3)}, "one rate for stem, block and head"
    torch.manual_seed(0)
    images, labels = torch.randn(8, 3, 8, 8), torch.arange(8)
    losses = []
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"]
    for _ in range(8):
        optimizer.zero_grad()
        loss = task.criterion(task.model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_packed_batches_weigh_in_by_their_images(loss: str) -> None:
    """Three images with weight 1.5 and one with 0.5: the mean of both losses is the mean over the four images."""
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    task, parts = classify(loss=loss), []
    for rows, weight in ((slice(0, 3), 1.5), (slice(3, 4), 0.5)):
        images: Any = logits[rows].clone()
        images.weight = weight
        parts.append(task.training_step((images, labels[rows]), 0)["loss"])
    torch.testing.assert_close(sum(parts) / 2, task.criterion(logits, labels))
