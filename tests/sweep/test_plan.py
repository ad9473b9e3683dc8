"""Words become jobs: Hydra's grammar, one identity for one configuration, folder names as ever."""

import pytest

from vitexp.errors import ConfigError
from vitexp.sweep.plan import folder_name, grid, hash_of, settings_of, sort_words


def planned(*words: str) -> list:
    return grid(sort_words(words), [])


def test_words_are_told_apart_by_purpose() -> None:
    words = sort_words(
        ["data=fake", "lr=1e-3,2e-3", "slots=2", "sweeper.trials=3", "hydra/launcher=submitit_local", "new=true"]
    )
    assert words.fixed == ("data=fake",)
    assert [override.key_or_group for override in words.swept] == ["optimizer.lr"]
    assert words.how == ("slots=2", "sweeper.trials=3", "new=true")
    assert words.hydra == ("hydra/launcher=submitit_local",)


def test_a_sweep_sweeps() -> None:
    with pytest.raises(ConfigError, match="several values"):
        sort_words(["lr=1e-3"])
    with pytest.raises(ConfigError, match="one value"):
        sort_words(["lr=1e-3,2e-3", "slots=1,2"])


def test_every_combination_the_last_word_fastest() -> None:
    jobs = planned("data=fake", "model=vit_nano,vit_micro", "seed=range(0,2)")
    assert [job.swept for job in jobs] == [
        {"model": "vit_nano", "seed": "0"},
        {"model": "vit_nano", "seed": "1"},
        {"model": "vit_micro", "seed": "0"},
        {"model": "vit_micro", "seed": "1"},
    ]
    assert jobs[3].cfg.chosen.model == "vit_micro"
    assert jobs[3].cfg.seed == 1
    assert jobs[0].overrides == ("data=fake", "model=vit_nano", "seed=0")


def test_a_glob_names_options_of_a_group() -> None:
    assert {job.swept["optimizer"] for job in planned("optimizer=glob(adam*)")} == {"adam", "adamw"}
    with pytest.raises(ConfigError, match="glob"):
        planned("seed=glob(1*)")


def test_the_same_jobs_are_the_same_however_written() -> None:
    def identity(*words: str) -> str:
        return hash_of(sorted(job.digest for job in planned(*words)))

    first = identity("data=fake", "lr=1e-3,2e-3")
    again = identity("optimizer.lr=0.002,0.001", "data=fake", "quiet=true", "outputs=elsewhere", "slots=3")
    assert first == again
    assert first != identity("data=fake", "lr=1e-3,3e-3")
    assert len(planned("lr=1e-3,0.001")) == 1, "one configuration, one job"


def test_an_interval_needs_a_study() -> None:
    with pytest.raises(ConfigError, match="sweeper=optuna"):
        planned("lr=interval(0,1)")


def test_a_key_that_only_a_swept_option_has_may_be_fixed() -> None:
    words = sort_words(["data=folder,imagenet", "data.root=/photographs", "slots=3"])
    settings = settings_of(words, [])
    assert (settings.chosen.data, settings.data.root, settings.slots) == ("folder", "/photographs", 3)
    assert [job.cfg.data.root for job in grid(words, [])] == ["/photographs"] * 2


def test_folder_names() -> None:
    assert folder_name({"optimizer.lr": "0.001", "seed": "1"}) == "lr=0.001,seed=1"
    assert folder_name({"optimizer.lr": "0.00123456789"}) == "lr=0.001235"
    assert folder_name({"data.sizes": "[96,32,32]"}) == "sizes=_96,32,32_"
    assert "/" not in folder_name({"checkpoint": "/a/b c.pth"})
