"""The lines that a run prints while it trains: the live status, one line an epoch, a heartbeat without a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from vitexp.report.text import duration, number

_BAR_WIDTHS = (8, 40)
_COLUMN_WIDTH = 10
# Room for the `^C` that the terminal echoes: a wrapped line could not be erased.
_MARGIN = 3


@dataclass(frozen=True)
class Status:
    """A moment of a run. None: not known yet.

    `label` says where (`epoch 3/20`, `val 12/40`), `steps` where in the epoch, `fraction` how much of the whole run
    (or of the test) is done, in [0, 1]; `remaining` is in seconds, `rate` in images a second, `waiting` a share.
    """

    label: str
    steps: str = ""
    fraction: float | None = None
    remaining: float | None = None
    rate: float | None = None
    waiting: float | None = None
    loss: float | None = None
    best: float | None = None

    def fields(self) -> list[tuple[str, str, str]]:
        """(name, text, style) of what is known, in the order of the line."""
        known = [
            ("steps", self.steps, "dim"),
            ("percent", "" if self.fraction is None else f"{100 * self.fraction:.0f}%", "bold"),
            ("remaining", "" if self.remaining is None else f"ETA {duration(self.remaining)}", "cyan"),
            ("rate", f"{self.rate:,.0f} img/s" if self.rate else "", ""),
            ("waiting", "" if self.waiting is None else f"wait {100 * self.waiting:.0f}%", "dim"),
            ("loss", "" if self.loss is None else f"loss {self.loss:.3f}", ""),
            ("best", "" if self.best is None else f"best {number(self.best)}", "green"),
        ]
        return [field for field in known if field[1]]


# What a narrow terminal goes without, first things first.
_DISPENSABLE = ("steps", "percent", "waiting", "loss", "best", "rate", "remaining")


def status_line(status: Status, *, width: int, ascii_only: bool) -> Text:
    """The status in one line of at most `width` characters, the bar as long as there is room."""
    fields = status.fields()
    least, most = _BAR_WIDTHS

    def room() -> int:
        return width - _MARGIN - len(status.label) - 1 - sum(len(text) + 2 for _, text, _ in fields)

    for name in _DISPENSABLE:
        if room() >= least:
            break
        fields = [field for field in fields if field[0] != name]
    line = Text(no_wrap=True, overflow="crop", end="").append(status.label, style="bold")
    if status.fraction is not None and room() >= least:
        line.append(" ").append_text(_bar(status.fraction, min(room(), most), ascii_only=ascii_only))
    for _, text, style in fields:
        line.append("  ").append(text, style=style)
    return line


def heartbeat(status: Status) -> str:
    """The status as a plain line."""
    return "  ".join([status.label, *(text for _, text, _ in status.fields())])


def epoch_head(names: Sequence[str]) -> str:
    """The line above the epoch lines; `names` are metrics such as `val/top1`."""
    head = [f"{name.replace('/', ' '):>{_COLUMN_WIDTH}}" for name in names]
    return f"{'epoch':>9} {' '.join(head)} {'lr':>8} {'time':>7} {'img/s':>7} {'wait':>4}"


def epoch_line(
    epoch: str, values: Sequence[float | None], *, lr: float | None, seconds: float, rate: float, waiting: float
) -> str:
    """One finished epoch, in the columns of `epoch_head`; 80 characters for three metrics."""
    cells = " ".join(f"{number(value):>{_COLUMN_WIDTH}}" for value in values)
    rate_text = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2f}"
    lr_text = "–" if lr is None else f"{lr:.2e}"
    return f"{epoch:>9} {cells} {lr_text:>8} {duration(seconds):>7} {rate_text:>7} {100 * waiting:>3.0f}%"


def _bar(fraction: float, width: int, *, ascii_only: bool) -> Text:
    full, empty = ("#", ".") if ascii_only else ("━", "─")
    done = round(max(0.0, min(1.0, fraction)) * width)
    return Text().append(full * done, style="green").append(empty * (width - done), style="dim")
