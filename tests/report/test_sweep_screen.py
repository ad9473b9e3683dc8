"""A sweep at work: a live table on a terminal, plain lines in a pipe, nothing if quiet."""

import io
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from vitexp.report.console import make_console
from vitexp.report.sweep_screen import Line, SweepScreen, remaining_seconds, sweep_status

RUNNING = [Line("3 lr=0.001 seed=[red]", "epoch 2/4", 0.5, "val/top1 0.9120", 12.0)]


@dataclass
class Job:
    state: str
    seconds: float = 20.0
    record: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.record = {"seconds": self.seconds}


def shown(width: int = 120) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    ended = [Job("done"), Job("done"), Job("killed")]
    console.print(sweep_status("sweep 2026", RUNNING, ended, 4, 2))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_says_what_runs_and_what_is_left() -> None:
    text = shown()
    for part in ("sweep 2026", "3 lr=0.001 seed=[red]", "epoch 2/4", "val/top1 0.9120", "12.0 s"):
        assert part in text
    assert "1 running, 4 waiting, 2 done, 1 killed, ETA 44.0 s" in text


def test_no_eta_before_the_first_job_is_done() -> None:
    assert remaining_seconds(RUNNING, [Job("failed")], 4, 2) is None


def test_a_pipe_gets_lines_and_no_table() -> None:
    file = io.StringIO()
    with SweepScreen(title="sweep", slots=2, quiet=False, console=make_console(file)) as screen:
        assert not screen.is_live
        screen.say("0 lr=0.1: starts")
        screen.draw(RUNNING, [], 1)
    assert file.getvalue() == "0 lr=0.1: starts\n"


def test_quiet_is_silent() -> None:
    file = io.StringIO()
    with SweepScreen(title="sweep", slots=2, quiet=True, console=make_console(file)) as screen:
        screen.say("0 lr=0.1: starts")
    assert file.getvalue() == ""
