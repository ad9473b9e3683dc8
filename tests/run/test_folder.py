"""The run folder: how it is found again, what its log holds, and how a full disk is told."""

import errno
import signal
from pathlib import Path

import pytest

from vitexp.config.compose import compose
from vitexp.errors import CheckpointError, Interrupted, ResourceError, behind
from vitexp.files.folder import Folder
from vitexp.report.screen import say
from vitexp.run.folder import Run, find, working

CFG = compose(["data=fake"])


def made(outputs: Path, folder: str, name: str | None = None) -> Run:
    """A run folder with its record and nothing else."""
    path = outputs / "2026-01-01" / folder
    path.mkdir(parents=True)
    run = Run(path)
    run.update(name=name, state="running", started=folder)
    return run


def test_a_run_is_found_by_its_folder_and_by_the_name_it_was_given(tmp_path: Path) -> None:
    made(tmp_path, "101500-mine-ab12", "mine")
    made(tmp_path, "101600-vit_nano-digits-full-cd34")
    made(tmp_path, "101700-twice-0001", "twice")
    made(tmp_path, "101800-twice-0002", "twice")
    for reference in ("mine", "mi", "101500", "101500-mine-ab12"):
        assert find(reference, tmp_path).name == "101500-mine-ab12"
    assert find("101600", tmp_path).name == "101600-vit_nano-digits-full-cd34"
    with pytest.raises(CheckpointError, match="run=twice matches 2 runs: 101700-twice-0001, 101800-twice-0002"):
        find("twice", tmp_path)
    with pytest.raises(CheckpointError, match="matches no run"):
        find("ine", tmp_path)


def test_a_name_wins_over_what_only_begins_with_it(tmp_path: Path) -> None:
    made(tmp_path, "101500-wide-ab12", "wide")
    made(tmp_path, "101600-wider-cd34", "wider")
    assert find("wide", tmp_path).name == "101500-wide-ab12"


def test_the_log_has_what_was_said_and_how_it_ended(tmp_path: Path, capsys) -> None:
    run = made(tmp_path, "101500-mine-ab12")
    with working(run, CFG):
        say("head is new: 10 classes", quiet=True)
    text = (run.path / "log.txt").read_text()
    assert "begun by process" in text
    assert "head is new: 10 classes" in text
    assert text.rstrip().endswith("ended: done")
    with pytest.raises(KeyError), working(run, CFG):
        raise KeyError("nobody thought of this")
    assert "Traceback" in (run.path / "log.txt").read_text()
    assert capsys.readouterr().out == ""


def full(self: Run, **fields: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_does_not_hide_what_a_run_ended_for(tmp_path: Path, monkeypatch, capsys) -> None:
    run = made(tmp_path, "101500-mine-ab12")
    monkeypatch.setattr(Run, "update", full)
    with pytest.raises(ResourceError, match="the first reason"), working(run, CFG):
        raise ResourceError("the first reason")
    assert "run.json: No space left on device" in capsys.readouterr().err
    with pytest.raises(ResourceError, match=r"run\.json: No space left on device; free space"), working(run, CFG):
        pass


def test_half_a_record_is_never_seen(tmp_path: Path) -> None:
    Folder(tmp_path).write_json("run.json", {"state": "running"})
    with pytest.raises(TypeError):
        Folder(tmp_path).write_json("run.json", {("a", "tuple"): "is no key"})  # type: ignore[dict-item]
    assert "running" in (tmp_path / "run.json").read_text()


def test_what_comes_on_top_of_an_interrupt_is_the_interrupt(tmp_path: Path) -> None:
    """A signal arrives anywhere: a library wraps it, or fails at being closed because of it."""
    run = made(tmp_path, "101500-mine-ab12")

    def closing() -> None:
        try:
            raise Interrupted(signal.SIGUSR1)
        finally:
            raise AttributeError("half made")

    with pytest.raises(Interrupted) as stopped, working(run, CFG):
        closing()
    assert stopped.value.in_run
    assert (run.record["state"], run.record["exit_code"]) == ("interrupted", 138)
    assert "half made" in (run.path / "log.txt").read_text()
    wrapped = SystemError("returned a result with an exception set")
    wrapped.__cause__ = Interrupted(signal.SIGINT)
    assert behind(wrapped) is wrapped.__cause__
    assert behind(RuntimeError("of its own")) is None
