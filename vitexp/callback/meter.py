"""The time of a run in steps, in waiting for data, in evaluation. Counters only: the caller has the clock."""

from collections import deque
from dataclasses import dataclass

# Rates are over the latest of these readings, so that a slow first step does not stay in the estimate.
_READINGS = 24


@dataclass(frozen=True)
class Reading:
    """Totals at one moment, or their difference between two: seconds, batches and images."""

    stepping: float = 0.0
    waiting: float = 0.0
    batches: int = 0
    images: int = 0

    def since(self, earlier: "Reading") -> "Reading":
        """The time since `earlier`."""
        return Reading(
            self.stepping - earlier.stepping,
            self.waiting - earlier.waiting,
            self.batches - earlier.batches,
            self.images - earlier.images,
        )

    @property
    def seconds(self) -> float:
        """Seconds of training, evaluation left out."""
        return self.stepping + self.waiting

    @property
    def rate(self) -> float:
        """Images a second; 0 before the first step."""
        return self.images / self.seconds if self.seconds > 0 else 0.0

    @property
    def wait_share(self) -> float:
        """Share of the training time spent waiting for data, in [0, 1]."""
        return self.waiting / self.seconds if self.seconds > 0 else 0.0


class Meter:
    """Count steps and waits. Waiting is the time from the end of a step to the start of the next."""

    def __init__(self) -> None:
        self._stepping = self._waiting = 0.0
        self._batches = self._images = 0
        self._mark = 0.0
        self._readings: deque[Reading] = deque([Reading()], maxlen=_READINGS)
        self._eval_seconds = 0.0
        self._evals = 0

    def start_waiting(self, now: float) -> None:
        """The run waits from here on, until the next step."""
        self._mark = now

    def start_step(self, now: float) -> None:
        """The batch is there."""
        self._waiting += now - self._mark
        self._mark = now

    def end_step(self, now: float, images: int) -> None:
        """The step of `images` images is done; waiting begins."""
        self._stepping += now - self._mark
        self._mark = now
        self._batches += 1
        self._images += images

    def start_eval(self, now: float) -> None:
        """An evaluation begins; what passed since the step is neither waiting nor stepping."""
        self._mark = now

    def end_eval(self, now: float) -> None:
        """The evaluation is over; waiting begins."""
        self._eval_seconds += now - self._mark
        self._evals += 1
        self._mark = now

    def read(self) -> Reading:
        """The totals of the run."""
        return Reading(self._stepping, self._waiting, self._batches, self._images)

    def recent(self) -> Reading:
        """The totals since some readings ago; each call is a reading."""
        now = self.read()
        recent = now.since(self._readings[0])
        if now.batches > self._readings[-1].batches:
            self._readings.append(now)
        return recent

    def remaining(self, batches: float, evals: float) -> float | None:
        """Seconds that so many batches and evaluations will take; None before the first step."""
        pace = self.read().since(self._readings[0])
        if not pace.batches:
            return None
        one_eval = self._eval_seconds / self._evals if self._evals else 0.0
        return batches * pace.seconds / pace.batches + evals * one_eval
