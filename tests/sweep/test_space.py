"""Hydra's sweep syntax as Optuna's distributions, and what a study cannot search."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from vitexp.errors import ConfigError
from vitexp.sweep.plan import settings_of, sort_words
from vitexp.sweep.space import Space


def space(*words: str) -> Space:
    given = sort_words(["data=fake", "sweeper=optuna", *words])
    return Space(given, settings_of(given, []), [])


def test_each_kind_of_sweep_is_a_distribution() -> None:
    found = space(
        "lr=tag(log,interval(1e-4,1e-2))",
        "wd=interval(0,0.1)",
        "bs=interval(16,64)",
        "model.depth=range(1,4)",
        "optimizer=adamw,sgd",
    ).distributions
    assert found["optimizer.lr"] == FloatDistribution(1e-4, 1e-2, log=True)
    assert found["optimizer.weight_decay"] == FloatDistribution(0.0, 0.1)
    assert found["data.batch_size"] == IntDistribution(16, 64), "its shipped value is a whole number"
    assert found["model.depth"] == IntDistribution(1, 3), "a range ends before its stop, as Hydra's"
    assert found["optimizer"] == CategoricalDistribution(["adamw", "sgd"])


def test_both_ends_are_checked_before_a_job_starts() -> None:
    with pytest.raises(ConfigError, match="out of range"):
        space("lr=interval(-1,1)")
    with pytest.raises(ConfigError, match="did you mean"):
        space("optimizer=adamw,adammw")
    with pytest.raises(ConfigError, match="low before high"):
        space("lr=interval(1,0.1)")
    with pytest.raises(ConfigError, match=r"sweeper\.sampler"):
        space("lr=1e-3,2e-3", "sweeper.sampler=best")


def test_a_grid_lists_what_has_an_end() -> None:
    listed = space("lr=1e-3,2e-3", "model.depth=range(1,3)", "sweeper.sampler=grid").combinations()
    assert [list(params.values()) for params in listed] == [["0.001", 1], ["0.001", 2], ["0.002", 1], ["0.002", 2]]
    with pytest.raises(ConfigError, match="interval"):
        space("lr=interval(0.1,1)", "sweeper.sampler=grid").combinations()


def test_more_trials_are_the_same_study_and_other_values_are_not() -> None:
    identity = space("seed=0,1").identity("train")
    assert identity == space("seed=0,1", "sweeper.trials=99").identity("train")
    assert identity != space("seed=0,2").identity("train")
    assert identity != space("seed=0,1", "lr=0.1").identity("train")


def test_a_drawn_number_becomes_an_override() -> None:
    job = space("lr=tag(log,interval(1e-6,1e-2))").planned({"optimizer.lr": 1.2345678901234567e-05})
    assert job.cfg.optimizer.lr == 1.2345678901234567e-05
