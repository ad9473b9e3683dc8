"""`vitexp resume` without a name finds what was interrupted, whatever came after it."""

import signal
from pathlib import Path

import pytest

from vitexp.cli import main
from vitexp.errors import Interrupted
from vitexp.run.folder import all_runs
from vitexp.task.classify import Classify

SMALL = ["data=fake", "data.sizes=[32,16,16]", "model.depth=1", "bs=16", "epochs=1", "logger=none", "quiet=true"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def interrupted(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def stopped(self: Classify, batch: object, batch_idx: int) -> None:
        raise Interrupted(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Classify, "training_step", stopped)
        assert main([*SMALL, f"name={name}"]) == 143


def states() -> dict[str | None, str]:
    return {run.record.get("name"): run.state for run in all_runs(Path("outputs"))}


def test_the_interrupted_one_behind_a_complete_one(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(monkeypatch, "early")
    assert main([*SMALL, "name=late"]) == 0
    assert main(["resume"]) == 0
    assert states() == {"early": "done", "late": "done"}


def test_several_are_listed_with_what_to_type(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    interrupted(monkeypatch, "one")
    interrupted(monkeypatch, "two")
    assert main([*SMALL, "name=late"]) == 0
    capsys.readouterr()
    assert main(["resume"]) == 2
    error = capsys.readouterr().err
    assert "2 others were interrupted" in error
    assert error.count("\n  vitexp resume run=") == 2
    assert " s ago)" in error
    assert states() == {"one": "interrupted", "two": "interrupted", "late": "done"}


def test_the_last_one_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(monkeypatch, "one")
    interrupted(monkeypatch, "two")
    assert main(["resume"]) == 0
    assert states() == {"one": "interrupted", "two": "done"}
