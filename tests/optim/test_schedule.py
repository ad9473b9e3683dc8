"""The schedules at their corners, and the three ways to say a warm-up."""

import math

import pytest
import torch

from vitexp.errors import ConfigError
from vitexp.optim.schedule import constant, cosine, factor, linear, step, warm_steps


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
    assert values[25] == 2.0 * (0.5 + 0.5 * 0.75)
    warmed = rates(constant, warmup="10 steps")
    assert set(warmed[10:]) == {2.0}
    assert warmed[5] == 1.0


def test_steps_multiply_from_the_very_step_on() -> None:
    values = rates(step, warmup="0 steps", at=[0.75, 0.5], gamma=0.5)
    assert [values[at] for at in (0, 49, 50, 74, 75, 100)] == [2.0, 2.0, 1.0, 1.0, 0.5, 0.5]


def test_the_decay_stays_at_its_ends() -> None:
    def decay(progress: float) -> float:
        return 1 - progress

    assert [factor(4, 8, decay, at) for at in (0, 1, 4, 6, 8, 9)] == [0.0, 0.25, 1.0, 0.5, 0.0, 0.0]
    assert [factor(8, 8, decay, at) for at in (4, 8, 9)] == [0.5, 1.0, 0.0], "a run that only warms up"


@pytest.mark.parametrize(
    ("text", "steps"), [("15%", 15), ("7 steps", 7), ("1 step", 1), ("2 epochs", 20), ("0.5 epochs", 5), ("100%", 100)]
)
def test_warmup_units(text: str, steps: int) -> None:
    assert warm_steps(text, 100, 10) == steps


def test_a_share_of_a_long_run_is_exact() -> None:
    assert warm_steps("15%", 10_000, 10) == 1500


@pytest.mark.parametrize("text", ["5", "five epochs", "-1 steps", "200 steps"])
def test_bad_warmup_says_what_to_write(text: str) -> None:
    with pytest.raises(ConfigError, match="use"):
        warm_steps(text, 100, 10)
