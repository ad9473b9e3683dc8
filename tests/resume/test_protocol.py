"""The protocol of exact resume: a run killed at any point, again and again, ends as the one that was not killed.

P1: at each batch and each hook of validation, saving and testing; P3: again in the session that went on. Here both at
once: one run is killed at every point in turn. P2 is `tests/resume/campaign.py`: SIGKILL at random times, with workers.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from tests.resume.toy import FILES, MEMORY, TOY, Death, differing, images, in_place, outcome, session, steps

AFTER_EPOCH = ("on_validation_start", "on_validation_batch_end", "on_validation_end", "on_train_epoch_end")
AT_END = ("on_train_end", "on_test_start", "on_test_end")


def points() -> Iterator[tuple[str, int]]:
    """Every (hook, steps done) of a run of two epochs of four steps, in order."""
    for step in range(8):
        yield "on_train_batch_start", step
        yield "on_train_batch_end", step + 1
        if step % 4 == 3:
            yield from ((hook, step + 1) for hook in AFTER_EPOCH)
    yield from ((hook, 8) for hook in AT_END)


STRONG = ["augment=strong", "augment.off_epochs=1"]
CHAINS = {
    "memory": [*MEMORY],
    "memory, accumulation, EMA, mixup": [*MEMORY, "trainer.accumulate=2", "trainer.ema=0.9", *STRONG],
    "files, EMA": [*FILES, "data.num_workers=0", "trainer.ema=0.9"],
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def whole(words: Sequence[str], place: Path) -> dict[str, str]:
    """The outcome of the uninterrupted run."""
    assert in_place(place, lambda: session(words))
    return outcome(place)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "memory" else name for name in CHAINS]
)
def test_a_run_killed_at_every_point_in_turn_ends_the_same(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    images(tmp_path / "images")
    words = [*TOY, *CHAINS[name], f"data.root={tmp_path}/images"] if "files" in name else [*TOY, *CHAINS[name]]
    expected = whole(words, tmp_path / "whole")
    place = tmp_path / "killed"
    for point in points():
        finished = in_place(place, lambda p=point: session(words, Death(*p)))
        assert not finished, f"{point} was not reached"
    assert in_place(place, lambda: session(words))
    assert differing(expected, outcome(place)) == []
    assert steps(place) == list(range(1, 9))


@pytest.mark.parametrize(
    ("campaign", "said"),
    [
        (["kills", "--runs=2"], "mismatches 0"),
        pytest.param(["kills", "--runs=40"], "mismatches 0", marks=pytest.mark.slow),
        pytest.param(["writes", "--runs=100"], "kills inside a write 100, unreadable 0", marks=pytest.mark.slow),
        pytest.param(["disk", "--runs=20"], "unreadable or unreported 0", marks=pytest.mark.slow),
        pytest.param(["signals", "--runs=21"], "wrong 0", marks=pytest.mark.slow),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_campaign_finds_no_difference(campaign: list[str], said: str) -> None:
    """In a process of its own: a process that has trained cannot fork one that trains."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.resume.campaign", *campaign]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert said in done.stdout
