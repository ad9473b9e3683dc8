"""Where the time goes, on a clock made by hand."""

import pytest

from vitexp.callback.meter import Meter


def train(meter: Meter, now: float, steps: int, *, wait: float, step: float, images: int = 10) -> float:
    for _ in range(steps):
        now += wait
        meter.start_step(now)
        now += step
        meter.end_step(now, images)
    return now


def test_steps_waits_and_evaluations_are_told_apart() -> None:
    meter = Meter()
    meter.start_waiting(100.0)
    now = train(meter, 100.0, 4, wait=1.0, step=3.0)
    meter.start_eval(now)
    meter.end_eval(now + 50.0)
    train(meter, now + 50.0, 1, wait=1.0, step=3.0)
    reading = meter.read()
    assert reading.stepping == pytest.approx(15.0)
    assert reading.waiting == pytest.approx(5.0)
    assert reading.wait_share == pytest.approx(0.25)
    assert reading.rate == pytest.approx(50 / 20)


def test_nothing_is_known_before_the_first_step() -> None:
    meter = Meter()
    assert meter.read().rate == 0.0
    assert meter.read().wait_share == 0.0
    assert meter.remaining(10, 1) is None


def test_remaining_counts_evaluations() -> None:
    meter = Meter()
    meter.start_waiting(0.0)
    now = train(meter, 0.0, 5, wait=0.0, step=2.0)
    assert meter.remaining(10, 3) == pytest.approx(20.0)  # no evaluation seen yet
    meter.start_eval(now)
    meter.end_eval(now + 7.0)
    assert meter.remaining(10, 3) == pytest.approx(20.0 + 21.0)


def test_a_slow_first_step_leaves_the_estimate() -> None:
    meter = Meter()
    meter.start_waiting(0.0)
    now = train(meter, 0.0, 1, wait=0.0, step=600.0)
    for _ in range(40):
        meter.recent()
        now = train(meter, now, 1, wait=0.0, step=1.0)
    assert meter.remaining(100, 0) == pytest.approx(100.0)
    assert meter.recent().rate == pytest.approx(10.0)
