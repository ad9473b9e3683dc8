"""Learning-rate schedules, one value a step: linear warm-up, then cosine, linear, in steps or constant.

The factor at step s of T with w warm-up steps is min(1, s / w) times the decay at p = (s - w) / (T - w), clipped to
[0, 1]: the form of google-research/vision_transformer (utils.py), so 0 at s = 0, 1 at s = w, `final` at s = T.
"""

import math
import re
from collections.abc import Callable, Sequence
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vitexp.errors import ConfigError

Decay = Callable[[float], float]


def cosine(optimizer: Optimizer, total_steps: int, steps_per_epoch: int, *, warmup: str, final: float) -> LambdaLR:
    """Half a cosine from 1 to `final` (a share of the base rate)."""
    decay = partial(_cosine, final)
    return LambdaLR(optimizer, partial(factor, warm_steps(warmup, total_steps, steps_per_epoch), total_steps, decay))


def linear(optimizer: Optimizer, total_steps: int, steps_per_epoch: int, *, warmup: str, final: float) -> LambdaLR:
    """A straight line from 1 to `final` (a share of the base rate)."""
    decay = partial(_linear, final)
    return LambdaLR(optimizer, partial(factor, warm_steps(warmup, total_steps, steps_per_epoch), total_steps, decay))


def constant(optimizer: Optimizer, total_steps: int, steps_per_epoch: int, *, warmup: str) -> LambdaLR:
    """The base rate after the warm-up."""
    return LambdaLR(optimizer, partial(factor, warm_steps(warmup, total_steps, steps_per_epoch), total_steps, _flat))


def step(
    optimizer: Optimizer, total_steps: int, steps_per_epoch: int, *, warmup: str, at: Sequence[float], gamma: float
) -> LambdaLR:
    """The base rate, multiplied by `gamma` at each of the shares `at` of the run."""
    decay = partial(_step, sorted(at), gamma)
    return LambdaLR(optimizer, partial(factor, warm_steps(warmup, total_steps, steps_per_epoch), total_steps, decay))


def factor(warm: int, total: int, decay: Decay, step: int) -> float:
    """The share of the base rate at `step` in [0, total]."""
    rise = min(1.0, step / warm) if warm else 1.0
    progress = min(1.0, max(0.0, (step - warm) / max(1, total - warm)))
    return rise * decay(progress)


def warm_steps(warmup: str, total_steps: int, steps_per_epoch: int) -> int:
    """Number of warm-up steps of `"15%"`, `"500 steps"` or `"5 epochs"`.

    Raises:
        ConfigError: another form, or a warm-up longer than the run.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%|steps?|epochs?)", warmup.strip())
    if not found:
        raise ConfigError(f"schedule.warmup={warmup} cannot be read; use '15%', '500 steps' or '5 epochs'")
    amount, unit = float(found.group(1)), found.group(2)
    scale = {"%": total_steps / 100, "s": 1.0, "e": float(steps_per_epoch)}[unit[0]]
    steps = round(amount * scale)
    if steps > total_steps:
        raise ConfigError(
            f"schedule.warmup={warmup} is {steps} steps, but the run has only {total_steps}; use a share such as '10%'"
        )
    return steps


def _step(at: Sequence[float], gamma: float, progress: float) -> float:
    return gamma ** sum(progress >= share for share in at)


def _cosine(final: float, progress: float) -> float:
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def _linear(final: float, progress: float) -> float:
    return final + (1 - final) * (1 - progress)


def _flat(progress: float) -> float:
    return 1.0
