"""Trackers show a run elsewhere, all by one small protocol; one Logger of Lightning's hands them what is logged."""

import logging
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pytorch_lightning.loggers import Logger

from vitexp.errors import first_line

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Session:
    """A run from its start or its resume on, as a tracker is told of it.

    Args:
        run_dir: the run folder, which exists.
        run_name: its name.
        config: the resolved configuration, without secrets.
        group: name of the sweep, if any.
        resume_step: None for a new run, else the step of the checkpoint it goes on from.
        ids: of the same run in earlier sessions, by the tracker's name.
    """

    run_dir: Path
    run_name: str
    config: Mapping[str, object]
    group: str | None
    resume_step: int | None
    ids: Mapping[str, str]


class Tracker(Protocol):
    """One run in one tool."""

    name: str

    @property
    def id(self) -> str | None:
        """The name by which a resume goes on with the same run there; None where the run folder is enough."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """Those with which the tool fails; the run goes on without it."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Show the values at `step`, which never falls."""

    def picture(self, name: str, path: Path, step: int) -> None:
        """Show a PNG as `name`."""

    def finish(self, exit_code: int) -> None:
        """Write what is left and end the session; `exit_code` 0 is success."""


class RunLogger(Logger):
    """Lightning's view of the trackers. One that fails is dropped after one line."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        super().__init__()
        self.trackers = list(trackers)
        self._step = 0

    @property
    def name(self) -> str:
        """Lightning's name for the logger."""
        return "vitexp"

    @property
    def version(self) -> str:
        """There is one logger a run."""
        return ""

    @property
    def ids(self) -> dict[str, str]:
        """The ids that a resume needs, by the tracker's name."""
        return {tracker.name: tracker.id for tracker in self.trackers if tracker.id is not None}

    def log_hyperparams(self, params: dict[str, object] | Namespace, *args: object, **kwargs: object) -> None:
        """Nothing: the trackers had the configuration at the start."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log at `step`; None, and a lower one than before, counts as the last."""
        now = self._step = max(self._step, step or 0)
        values = {name: float(value) for name, value in metrics.items() if name != "step"}
        self._each(lambda tracker: tracker.log(values, now))

    def log_picture(self, name: str, path: Path, step: int) -> None:
        """Show a PNG as `name`."""
        now = self._step = max(self._step, step)
        self._each(lambda tracker: tracker.picture(name, path, now))

    def close(self, *, exit_code: int) -> None:
        """The last call of a run, after the last picture; Lightning's own `finalize` comes before the test."""
        self._each(lambda tracker: tracker.finish(exit_code))
        self.trackers.clear()

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for tracker in list(self.trackers):
            try:
                call(tracker)
            except tracker.errors as error:
                self.trackers.remove(tracker)
                told = "%s stopped (%s); the run goes on without it, metrics.csv is complete"
                log.warning(told, tracker.name, first_line(error))
                with suppress(*tracker.errors):
                    tracker.finish(1)
