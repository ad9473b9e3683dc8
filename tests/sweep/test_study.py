"""A study that survives: it goes on with its trials, proposes what it would have proposed, prunes by val metrics."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from tests.sweeps import TOY, finish, in_state, jobs, start, until
from vitexp.errors import ConfigError
from vitexp.sweep.folder import FINISHED, Job, Sweep, create_sweep, find_sweep
from vitexp.sweep.plan import Planned, settings_of, sort_words
from vitexp.sweep.space import Space
from vitexp.sweep.study import Study

WORDS = ("data=fake", "sweeper=optuna", "sweeper.startup=2", "sweeper.trials=5", "lr=tag(log,interval(1e-4,1e-1))")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are planned without composing each: here nothing is trained by them."""
    cfg = space().cfg

    def planned(self: Space, params: dict[str, Any]) -> Planned:
        return Planned((), {key: str(params[key]) for key in self.distributions}, cfg)

    monkeypatch.setattr(Space, "planned", planned)


@cache
def space(*more: str) -> Space:
    given = sort_words([*WORDS, *more])
    return Space(given, settings_of(given, []), [])


def opened(outputs: Path, *more: str) -> tuple[Sweep, Study]:
    """The sweep and its study as a command opens them, again and again."""
    sweep = find_sweep(outputs, "here") or create_sweep(outputs, identity="here", verb="train", argv=[])
    left = [job for job in sweep.jobs if job.state not in FINISHED]
    return sweep, Study(sweep, space(*more), left=left, new=True)


def trained(job: Job, curve: list[float], *, state: str = "done") -> Job:
    """As a process leaves it: `curve` is val/top1 by epoch."""
    job.folder.write_json("run.json", {"monitor": ["val/top1", 1], "state": state})
    rows = "".join(f"{epoch + 1},{epoch},{value}\n" for epoch, value in enumerate(curve))
    (job.path / "metrics.csv").write_text("step,epoch,val/top1\n" + rows)
    job.update(state=state, metrics={"best/val/top1": max(curve), "val/top1": curve[-1]} if state == "done" else {})
    return job


def score(job: Job) -> float:
    return 1.0 / (1.0 + abs(float(job.swept["optimizer.lr"]) - 0.01))


def test_a_study_killed_anywhere_proposes_what_it_would_have_proposed(tmp_path: Path) -> None:
    proposals: dict[str, list[Any]] = {}
    for name, kills in (("whole", ()), ("killed", (1, 3))):
        sweep, study = opened(tmp_path / name)
        while (job := study.next()) is not None:
            if job.number in kills:  # dies with the job at work, which ends by itself; then the command comes again
                trained(job, [score(job)])
                sweep.release()
                sweep, study = opened(tmp_path / name)
                continue
            study.ended(trained(job, [score(job)]))
        proposals[name] = [job.swept["optimizer.lr"] for job in sweep.jobs]
        assert [trial.state for trial in study._study.trials] == [TrialState.COMPLETE] * 5
    assert proposals["whole"] == proposals["killed"]
    assert len(set(proposals["whole"])) == 5


def test_a_trial_that_was_running_goes_on_in_its_job_and_a_larger_number_extends(tmp_path: Path) -> None:
    sweep, study = opened(tmp_path, "sweeper.trials=2")
    first = study.next()
    assert first is not None
    first.update(state="running")
    study._ask()  # killed before this one got its job
    sweep.release()
    sweep, study = opened(tmp_path, "sweeper.trials=3")
    again, orphan, new = study.next(), study.next(), study.next()
    assert again is not None
    assert again.path == first.path
    assert [job.record["trial"] for job in sweep.jobs] == [0, 1, 2]
    assert (orphan, new) == (sweep.jobs[1], sweep.jobs[2])
    assert study.next() is None


def test_a_failed_trial_is_tried_again_in_its_job(tmp_path: Path) -> None:
    sweep, study = opened(tmp_path, "sweeper.trials=1")
    job = study.next()
    assert job is not None
    study.ended(trained(job, [0.1], state="failed"))
    assert study._study.trials[0].state == TrialState.FAIL
    sweep.release()
    for _ in range(2):
        sweep, study = opened(tmp_path, "sweeper.trials=1")
        again = study.next()
        if again is not None:
            assert again.path == job.path
            study.ended(trained(again, [0.7]))
        sweep.release()
    assert [trial.value for trial in study._study.trials] == [None, 0.7], "told once"
    assert study.best() == f"best: job {sweep.jobs[0].label}, best/val/top1 0.7000"


def test_what_falls_behind_is_pruned(tmp_path: Path) -> None:
    _, study = opened(tmp_path, "sweeper.prune_after_trials=2", "sweeper.prune_after_epochs=1")
    for curve in ([0.3, 0.5, 0.6], [0.3, 0.5, 0.7]):
        job = study.next()
        assert job is not None
        study.ended(trained(job, curve))
    good, bad = study.next(), study.next()
    assert good is not None
    assert bad is not None
    trained(good, [0.3, 0.6], state="running")
    trained(bad, [0.2, 0.2], state="running")
    assert study.watch([good, bad]) == [bad]
    assert study.watch([good, bad]) == [], "it looks twice a second, no more"
    bad.update(state="pruned")
    study.ended(bad)
    assert study._study.trials[3].state == TrialState.PRUNED
    assert study._study.trials[3].intermediate_values == {0: 0.2, 1: 0.2}


def test_a_grid_is_walked_through_once(tmp_path: Path) -> None:
    sweep, study = opened(tmp_path, "lr=1e-3,1e-2", "seed=0,1", "sweeper.sampler=grid", "sweeper.trials=9")
    while (job := study.next()) is not None:
        study.ended(trained(job, [0.5]))
    found = [tuple(job.swept.values()) for job in sweep.jobs]
    assert found == [("0.001", "0"), ("0.001", "1"), ("0.01", "0"), ("0.01", "1")]


def test_a_metric_that_is_not_there_or_a_wrong_direction_is_said(tmp_path: Path) -> None:
    _, study = opened(tmp_path, "sweeper.metric=test/map")
    job = study.next()
    assert job is not None
    with pytest.raises(ConfigError, match="best/val/top1"):
        study.ended(trained(job, [0.5]))
    _, study = opened(tmp_path / "other", "sweeper.direction=minimize")
    job = study.next()
    assert job is not None
    with pytest.raises(ConfigError, match="maximize"):
        study.ended(trained(job, [0.5]))


@pytest.mark.slow
def test_a_study_of_processes_survives_its_death(tmp_path: Path) -> None:
    """8 trials on 2 slots; the whole is killed in between, and one job as well."""
    words = (*TOY, "epochs=20", "trainer.checkpoint_seconds=0", "sweeper=optuna", "sweeper.trials=8", "slots=2")
    words = (*words, "sweeper.startup=3", "sweeper.prune_after_trials=3", "lr=tag(log,interval(1e-7,1e-2))")
    process = start(tmp_path, *words)
    until(lambda: len(in_state(tmp_path, "done")) >= 2 and len(in_state(tmp_path, "running")) == 2)
    process.kill()
    process.communicate()
    before = {job["number"]: job for job in jobs(tmp_path) if job["state"] == "done"}
    code, output = finish(tmp_path, *words)
    assert code == 0, output
    after = jobs(tmp_path)
    assert len(after) == 8
    assert {job["state"] for job in after} <= {"done", "pruned"}
    for number, job in before.items():
        assert after[number] == job, "a finished trial is not run again"
    assert "best: job" in output
    assert len(json.loads(next(tmp_path.glob("outputs/sweeps/*/sweep.json")).read_text())["jobs"]) == 8
    code, output = finish(tmp_path, *words)
    assert code == 0
    assert "starts" not in output
