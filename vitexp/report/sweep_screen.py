"""The screen of a sweep: a live table on a terminal, a line for each start and end elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vitexp.report.console import make_console
from vitexp.report.text import clean, duration, elide

_REFRESH_S = 0.5
_LABEL = 60
_STYLES = {"done": "green", "pruned": "magenta", "failed": "red", "killed": "red", "interrupted": "yellow"}


class Ended(Protocol):
    """A job that is over."""

    @property
    def state(self) -> str:
        """running, done, failed or another state of a job."""

    @property
    def seconds(self) -> float:
        """The time that it took."""


@dataclass(frozen=True)
class Line:
    """A running job: what it is, where it stands, its share in [0, 1], the best value so far, seconds."""

    label: str
    where: str
    fraction: float | None
    best: str
    seconds: float


class SweepScreen:
    """The screen of one sweep, `slots` jobs at a time; nothing if quiet."""

    def __init__(self, *, title: str, slots: int, quiet: bool, console: Console | None = None) -> None:
        self.title = title
        self.slots = slots
        self.quiet = quiet
        self.console = console or make_console()
        self._live: Live | None = None
        self._due = 0.0

    def __enter__(self) -> Self:
        """Open the live table where there is a terminal."""
        console = self.console
        if not self.quiet and console.is_terminal and console.file.isatty() and not console.is_dumb_terminal:
            self._live = Live(console=console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    @property
    def is_live(self) -> bool:
        """Whether a table is drawn."""
        return self._live is not None

    def say(self, line: str) -> None:
        """One line that stays."""
        if not self.quiet:
            self.console.print(clean(line), soft_wrap=True)

    def draw(self, running: Sequence[Line], ended: Sequence[Ended], waiting: int) -> None:
        """The live table, if it is time."""
        if self._live is not None and monotonic() >= self._due:
            self._live.update(sweep_status(self.title, running, ended, waiting, self.slots), refresh=True)
            self._due = monotonic() + _REFRESH_S


def sweep_status(
    title: str, running: Sequence[Line], ended: Sequence[Ended], waiting: int, slots: int
) -> RenderableType:
    """The running jobs in a table, below it how many are over, wait, and how long they will take."""
    table = Table.grid(padding=(0, 2))
    for _ in range(5):
        table.add_column(no_wrap=True)
    for line in running:
        bar = ProgressBar(total=1.0, completed=line.fraction or 0.0, width=20)
        cells = (Text(line.where), bar, Text(clean(line.best)), Text(duration(line.seconds), style="dim"))
        table.add_row(Text(elide(line.label, _LABEL), style="bold"), *cells)
    parts = [Text(f"{len(running)} running", style="cyan"), Text(f"{waiting} waiting", style="dim")]
    counts = counted(ended)
    parts += [Text(f"{count} {state}", style=_STYLES.get(state, "")) for state, count in counts.items()]
    left = remaining_seconds(running, ended, waiting, slots)
    if left is not None:
        parts.append(Text(f"ETA {duration(left)}", style="cyan"))
    return Group(Text(clean(title), style="bold"), table, Text(", ").join(parts))


def counted(ended: Sequence[Ended]) -> Mapping[str, int]:
    """Jobs by state."""
    states = [job.state for job in ended]
    return {state: states.count(state) for state in dict.fromkeys(states)}


def remaining_seconds(running: Sequence[Line], ended: Sequence[Ended], waiting: int, slots: int) -> float | None:
    """The seconds left if every job takes as long as those that are done; None before the first is."""
    times = [job.seconds for job in ended if job.state == "done"]
    if not times:
        return None
    mean = sum(times) / len(times)
    left = sum(max(0.0, mean - line.seconds) for line in running) + waiting * mean
    return left / max(1, slots)
