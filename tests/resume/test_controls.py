"""P8: the proof of exact resume notices what is missing: with one piece taken out, the resumed run must differ."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.resume.toy import FILES, MEMORY, TOY, Death, differing, images, in_place, outcome, session
from vitexp import seeding
from vitexp.callback.average import Average
from vitexp.callback.step_keys import StepKeys
from vitexp.callback.step_log import StepLog
from vitexp.data.order import EpochOrder
from vitexp.task.base import Task

WORDS = [*TOY, *MEMORY, "trainer.ema=0.9", "augment=strong", "trainer.log_every=3"]
KILLED = Death("on_train_batch_start", 7)


@pytest.fixture(scope="module", autouse=True)  # the run that all are compared with is made within it, too
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("whole")
    assert in_place(place, lambda: session(WORDS))
    return outcome(place)


def resumed(words: list[str], place: Path) -> dict[str, str]:
    """Killed inside the second epoch, then gone on with."""
    assert not in_place(place, lambda: session(words, KILLED))
    assert in_place(place, lambda: session(words))
    return outcome(place)


def no_state(self: Any, state: dict[str, Any]) -> None:
    """Forget what the checkpoint holds."""


def no_sums(self: Any, checkpoint: dict[str, Any]) -> None:
    """Forget the open means of the epoch."""


CONTROLS = {
    "seeds of the steps": (StepKeys, "on_train_batch_start", lambda *parts: None, "weights"),
    "seeds of the batches": (seeding, "seed_step", lambda *parts, **keywords: None, "weights"),
    "where the epoch goes on": (EpochOrder, "first_batch", property(lambda self: 0), "weights"),
    "state of the schedule": (torch.optim.lr_scheduler.LambdaLR, "load_state_dict", no_state, "schedule"),
    "state of the optimizer": (torch.optim.AdamW, "load_state_dict", no_state, "weights"),
    "state of the average": (Average, "load_state_dict", no_state, "exported"),
    "open row of the log": (StepLog, "on_load_checkpoint", lambda *parts: None, "metrics"),
    "open means of the epoch": (Task, "on_load_checkpoint", no_sums, "metrics"),
}

DEFAULT = ("seeds of the steps", "where the epoch goes on")


def test_nothing_taken_out_nothing_differs(expected: dict[str, str], tmp_path: Path) -> None:
    assert differing(expected, resumed(WORDS, tmp_path / "killed")) == []


@pytest.mark.parametrize(
    "name", [n if i % 4 == 0 else pytest.param(n, marks=pytest.mark.slow) for i, n in enumerate(CONTROLS)]
)
def test_a_piece_taken_out_is_noticed(name: str, expected: dict[str, str], tmp_path: Path, monkeypatch) -> None:
    owner, attribute, instead, part = CONTROLS[name]
    monkeypatch.setattr(owner, attribute, instead)
    words = WORDS
    if name.startswith("seeds"):  # the uninterrupted run without them, from the same start
        words = [word for word in WORDS if name == "seeds of the batches" or not word.startswith("augment")]
        torch.manual_seed(0)
        assert in_place(tmp_path / "whole", lambda: session(words))
        expected = outcome(tmp_path / "whole")
        torch.manual_seed(0)
    assert part in differing(expected, resumed(words, tmp_path / "killed"))


@pytest.mark.slow
def test_seeds_of_the_samples_taken_out_are_noticed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(seeding, "seed_sample", lambda *parts: None)
    words = [*TOY, *FILES, f"data.root={images(tmp_path / 'images')}", "data.num_workers=0"]
    torch.manual_seed(0)
    assert in_place(tmp_path / "whole", lambda: session(words))
    torch.manual_seed(0)
    assert "weights" in differing(outcome(tmp_path / "whole"), resumed(words, tmp_path / "killed"))
