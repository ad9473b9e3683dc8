"""Several processes validate and save the same batch norms."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from vitexp.callback.shared_norms import SharedNorms, statistics


class Strategy:
    """Another process has everywhere two more."""

    def reduce(self, value: torch.Tensor, reduce_op: str) -> torch.Tensor:
        assert reduce_op == "mean"
        return value + 1


def scene(world_size: int) -> tuple[Any, Any, Any]:
    model, copy = (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for _ in range(2))
    trainer = SimpleNamespace(world_size=world_size, current_epoch=0, strategy=Strategy())
    return trainer, SimpleNamespace(model=model), copy


def test_once_an_epoch_the_statistics_of_both_models_are_the_mean() -> None:
    trainer, module, copy = scene(2)
    weights = [p.clone() for p in module.model.parameters()]
    norms = SharedNorms(average=SimpleNamespace(average=copy))  # type: ignore[arg-type]
    norms.on_validation_start(trainer, module)
    norms.on_train_epoch_end(trainer, module)
    for model in (module.model, copy):
        assert [buffer.tolist() for buffer in statistics(model)] == [[1, 1], [2, 2]]
    assert all(torch.equal(a, b) for a, b in zip(weights, module.model.parameters(), strict=True))
    trainer.current_epoch = 1
    norms.on_train_epoch_end(trainer, module)
    assert statistics(module.model)[0].tolist() == [2, 2]


def test_one_process_has_nothing_to_share() -> None:
    trainer, module, _ = scene(1)
    SharedNorms().on_validation_start(trainer, module)
    assert [buffer.tolist() for buffer in statistics(module.model)] == [[0, 0], [1, 1]]
