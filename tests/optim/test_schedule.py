"""The schedules at their corners, and the three ways to say a warm-up."""

import math

import pytest
import torch

from vitexp.errors import ConfigError
from vitexp.optim.schedule import constant, cosine, linear, warm_steps


def rates(schedule, total: int = 100, **keywords: object) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = schedule(optimizer, total, 10, **keywords)
    values = [scheduler.get_last_lr()[0]]
    for _ in range(total):
        optimizer.step()
        scheduler.step()
        values.append(scheduler.get_last_lr()[0])
    return values


def test_cosine_starts_at_zero_peaks_after_warmup_and_ends_at_zero() -> None:
    values = rates(cosine, warmup="20%", final=0.0)
    assert values[0] == 0
    assert values[20] == 2.0
    assert values[100] == pytest.approx(0.0, abs=1e-12)
    assert values[60] == pytest.approx(2.0 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert values[:21] == sorted(values[:21])
    assert values[20:] == sorted(values[20:], reverse=True)


def test_linear_and_constant() -> None:
    values = rates(linear, warmup="0 steps", final=0.5)
    assert values[0] == 2.0
    assert values[100] == 1.0
    assert set(rates(constant, warmup="10 steps")[10:]) == {2.0}


@pytest.mark.parametrize(
    ("text", "steps"), [("15%", 15), ("7 steps", 7), ("1 step", 1), ("2 epochs", 20), ("0.5 epochs", 5)]
)
def test_warmup_units(text: str, steps: int) -> None:
    assert warm_steps(text, 100, 10) == steps


@pytest.mark.parametrize("text", ["5", "five epochs", "-1 steps", "200 steps"])
def test_bad_warmup_says_what_to_write(text: str) -> None:
    with pytest.raises(ConfigError, match="use"):
        warm_steps(text, 100, 10)
