"""The prints of a verb besides its progress: notes, the header before, the card after."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import RenderableType

from vitexp.report.console import make_console
from vitexp.report.metrics import CARD
from vitexp.report.table import card, metrics_table
from vitexp.report.text import clean

log = logging.getLogger("vitexp")
NEXT = (
    ("vitexp evaluate run=last", "test it again, or elsewhere with data=..."),
    ("vitexp predict run=last image=FILE", "label an image"),
    ("vitexp report run=last open=true", "the run as one page; `vitexp dashboard` shows all runs"),
)


def show(content: RenderableType, *, quiet: bool) -> None:
    """Print unless quiet."""
    if not quiet:
        make_console().print(content)


def say(line: str, *, quiet: bool) -> None:
    """One line, to the screen and to the run's log."""
    log.info(line)
    if not quiet:
        make_console().print(clean(line), soft_wrap=True)


def print_notes(notes: Sequence[str], *, quiet: bool) -> None:
    """Print notes, one line each."""
    for note in notes:
        say(note, quiet=quiet)


def print_card(name: str, folder: Path, metrics: Mapping[str, float], seconds: float) -> None:
    """The result of a run: the best epoch and the last, where it is, what to type next."""
    best = {key.removeprefix("best/"): value for key, value in metrics.items() if key.startswith("best/")}
    last = {key: value for key, value in metrics.items() if not key.startswith("best/")}
    best.pop("epoch", None)
    ordered = {key: last[key] for key in CARD if key in last}
    show(
        card(name=name, folder=str(folder), best=best, last=ordered, seconds=seconds, commands=NEXT),
        quiet=False,
    )


def print_metrics(title: str, metrics: Mapping[str, float], folder: Path) -> None:
    """The metrics of an evaluation and where they are written."""
    say(title, quiet=False)
    show(metrics_table(metrics), quiet=False)
    make_console().print(f"written to {clean(folder)}", soft_wrap=True)
