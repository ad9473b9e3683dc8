"""`sweeper=optuna`: a study proposes the values, learns from each job, and stops those that fall behind.

Optuna's ask and tell over the same jobs as any sweep. The study is `study.db` in the sweep's folder (SQLite, written by
the sweep alone), so it survives with it: a trial that was running goes on in its job, one that failed is tried again in
it. A job is judged by the validation metric in its metrics.csv, epoch by epoch; a pruned one stops at a safe point.
Each trial has a sampler seeded by (seed, trial), so a study that was stopped proposes what it would have proposed.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from time import monotonic

import optuna
from omegaconf import DictConfig
from optuna.trial import Trial, TrialState
from sqlalchemy.engine import URL

from vitexp.errors import ConfigError
from vitexp.report.metrics import TEST_TOP1
from vitexp.sweep.folder import Job, Sweep
from vitexp.sweep.progress import metrics_of, monitor_of
from vitexp.sweep.space import Space

_LOOK_S = 0.5
_STATES = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


class Study:
    """A source of jobs (see loop.py): those that are left of an earlier session, then new trials."""

    def __init__(self, sweep: Sweep, space: Space, *, left: Sequence[Job], new: bool) -> None:
        """Open the study, or begin it.

        Args:
            sweep: held by this process.
            space: where it searches.
            left: jobs to be run again.
            new: whether to ask for new trials too.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._sweep, self._space, self._settings = sweep, space, space.settings
        database = URL.create("sqlite", database=str((sweep.path / "study.db").resolve()))
        self._study = optuna.create_study(
            storage=optuna.storages.RDBStorage(database.render_as_string()),
            study_name="sweep",
            direction=self._settings.direction,
            pruner=_pruner(self._settings),
            load_if_exists=True,
        )
        self._left = list(left)
        self._grid = space.combinations() if self._settings.sampler == "grid" else None
        limit = self._settings.trials if self._grid is None else min(self._settings.trials, len(self._grid))
        self._new = max(0, limit - len(sweep.jobs)) if new else 0
        self._reported: dict[int, int] = {}
        self._due = 0.0
        for job in sweep.jobs:  # what ended while nobody listened
            if job.state in ("done", "pruned"):
                self.ended(job)

    @property
    def remaining(self) -> int:
        """Jobs that are still to be started."""
        return len(self._left) + self._new

    def next(self) -> Job | None:
        """A job that was left over and that nobody works on, else a new trial."""
        for job in self._left:
            if not job.is_busy():
                self._left.remove(job)
                job.freeze(self._space.planned(job.swept).cfg)
                return job
        if not self._new:
            return None
        self._new -= 1
        trial = self._orphan() or self._ask()
        return self._sweep.add(self._space.planned(trial.params), trial=trial.number)

    def ended(self, job: Job) -> None:
        """Tell the study how the job did; one that was interrupted is still a running trial."""
        trial = self._study.trials[job.record["trial"]]
        if job.state == "interrupted" or (trial.state.is_finished() and trial.state != TrialState.FAIL):
            return
        value = self._objective(job) if job.state == "done" else None
        if trial.state == TrialState.RUNNING:
            self._report(job)
            state = _STATES.get(job.state, TrialState.FAIL)
            if value is not None and not math.isfinite(value):
                state, value = TrialState.FAIL, None
            self._study.tell(trial.number, value, state=state)
        elif value is not None and not self._told_again(job):
            new = optuna.trial.create_trial(
                params=trial.params,
                distributions=trial.distributions,
                value=value,
                user_attrs={"job": job.number},
            )
            self._study.add_trial(new)

    def watch(self, running: Sequence[Job]) -> Iterable[Job]:
        """Jobs that the pruner gives up, by what their metrics.csv says so far."""
        if monotonic() < self._due:
            return []
        self._due = monotonic() + _LOOK_S
        return [job for job in running if self._report(job) and self._trial(job).should_prune()]

    def best(self) -> str | None:
        """The best job so far in a few words; None before there is one."""
        values = [(value, job) for job in self._sweep.jobs if (value := self._objective(job)) is not None]
        values = [(value, job) for value, job in values if math.isfinite(value)]
        if not values:
            return None
        choose = max if self._settings.direction == "maximize" else min
        value, job = choose(values, key=lambda pair: pair[0])
        return f"best: job {job.label}, {self._metric(job)} {value:.4f}"

    def _ask(self) -> Trial:
        number = len(self._study.trials)
        self._study.sampler = _sampler(self._settings, number)
        if self._grid is not None:
            self._study.enqueue_trial(self._grid[len(self._sweep.jobs)])
        return self._study.ask(self._space.distributions)

    def _orphan(self) -> Trial | None:
        """A trial that was asked for just before the sweep was killed, and has no job yet."""
        owned = {job.record["trial"] for job in self._sweep.jobs}
        for trial in self._study.trials:
            if trial.state == TrialState.RUNNING and trial.number not in owned:
                return Trial(self._study, trial._trial_id)
        return None

    def _trial(self, job: Job) -> Trial:
        return Trial(self._study, self._study.trials[job.record["trial"]]._trial_id)

    def _report(self, job: Job) -> bool:
        """Pass on the epochs that the study has not seen; whether there were any."""
        monitor = monitor_of(job)
        if monitor is None or self._study.trials[job.record["trial"]].state != TrialState.RUNNING:
            return False
        name, sign = monitor
        if self._settings.metric not in (None, name):
            return False  # another value is optimised: falling behind in this one says nothing
        direction = "maximize" if sign > 0 else "minimize"
        if self._settings.direction != direction:
            raise ConfigError(f"sweeper.direction={self._settings.direction}, but {name} is to {direction}; drop it")
        seen = self._reported.get(job.number, -1)
        epochs = {int(row["epoch"]): row[name] for row in metrics_of(job) if name in row and "epoch" in row}
        fresh = {epoch: value for epoch, value in epochs.items() if epoch > seen}
        for epoch, value in fresh.items():
            self._trial(job).report(value, epoch)
            self._reported[job.number] = epoch
        return bool(fresh)

    def _objective(self, job: Job) -> float | None:
        """The value of a job that is done.

        Raises:
            ConfigError: it has no such metric.
        """
        if job.state != "done":
            return None
        metrics, name = job.record["metrics"], self._metric(job)
        if name not in metrics:
            raise ConfigError(f"sweeper.metric={name} is none of a job's metrics; use {', '.join(sorted(metrics))}")
        return float(metrics[name])

    def _metric(self, job: Job) -> str:
        monitor = monitor_of(job)
        return str(self._settings.metric or (f"best/{monitor[0]}" if monitor else TEST_TOP1))

    def _told_again(self, job: Job) -> bool:
        return any(trial.user_attrs.get("job") == job.number for trial in self._study.trials)


def _sampler(settings: DictConfig, number: int) -> optuna.samplers.BaseSampler:
    digits = hashlib.sha256(f"{settings.seed}/{number}".encode()).hexdigest()[:8]
    if settings.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=int(digits, 16), n_startup_trials=settings.startup)
    return optuna.samplers.RandomSampler(seed=int(digits, 16))


def _pruner(settings: DictConfig) -> optuna.pruners.BasePruner:
    if settings.pruner == "median":
        return optuna.pruners.MedianPruner(
            n_startup_trials=settings.prune_after_trials, n_warmup_steps=settings.prune_after_epochs
        )
    if settings.pruner == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=settings.rung, reduction_factor=settings.reduction)
    return optuna.pruners.NopPruner()
