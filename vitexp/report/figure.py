"""Figures of one look, without pyplot: no global state, no display, no settings from the user's matplotlibrc.

Colours are those of Okabe and Ito ("Color universal design", 2008), which people with any colour vision can tell apart.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitexp.errors import ResourceError
from vitexp.files.folder import whole
from vitexp.report.text import elide

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#7F7F7F"
SKY, PURPLE = "#56B4E9", "#CC79A7"
# One for each curve of a picture, with a marker and a line of its own, so that colour is never the only difference.
SERIES = (
    (BLUE, "o", "-"),
    (ORANGE, "s", "--"),
    (GREEN, "^", "-."),
    (VERMILION, "D", ":"),
    (PURPLE, "v", "-"),
    (SKY, "P", "--"),
)
DPI = 150


def strokes(count: int) -> list[tuple[str, str, str]]:
    """(colour, marker, line) of so many curves: past the sixth, colours and markers meet in other pairs."""
    colors, markers, lines = zip(*SERIES, strict=True)
    size = len(SERIES)
    return [(colors[i % size], markers[(i + i // size) % size], lines[(i + i // size) % size]) for i in range(count)]


_STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 13,
    "axes.titlesize": 11,
    "axes.titlecolor": "#444444",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 14,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E3E3E3",
    "axes.axisbelow": True,
    "lines.linewidth": 2.4,
    "legend.frameon": False,
    "legend.fontsize": 13,
    "text.parse_math": False,  # a class may be called $5
    "text.usetex": False,
    "svg.hashsalt": "vitexp",  # the same picture is the same file
}


@contextmanager
def figure(out: Path, *, headline: str, size: tuple[float, float], vector: bool = False) -> Iterator["Figure"]:
    """A figure to draw on, written to the PNG `out` on leaving the block.

    Args:
        out: the file; its folder is made.
        headline: what the picture shows, in bold above all axes.
        size: width and height in inches, of 150 pixels.
        vector: whether an SVG is written beside the PNG.

    Raises:
        ResourceError: the file cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcParams.update({k: v for k, v in matplotlib.rcParamsDefault.items() if k != "backend"})
        matplotlib.rcParams.update(_STYLE)
        # A script that DejaVu lacks is drawn as boxes; no reason to write to the terminal.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        drawing = Figure(figsize=size, dpi=DPI, layout="constrained")
        drawing.suptitle(headline, x=0.01, ha="left", fontsize=17, fontweight="bold")
        yield drawing
        try:
            _save(drawing, out, metadata=None)
            if vector:
                _save(drawing, out.with_suffix(".svg"), metadata={"Date": None})
        except OSError as error:
            raise ResourceError(
                f"cannot write {out}: {error.strerror}; a picture needs 1 MB in a writable folder; free space there"
            ) from error


def _save(drawing: "Figure", out: Path, *, metadata: dict[str, None] | None) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole(out) as part:
        drawing.savefig(part, facecolor="white", format=out.suffix[1:], metadata=metadata)


def footnote(drawing: "Figure", text: str) -> None:
    """Write what the picture shows (model, checkpoint, data), small, below all axes."""
    if text:
        lines = "\n".join(elide(line, 140) for line in text.splitlines())
        drawing.supxlabel(lines, x=0.01, ha="left", fontsize=11, color="#444444")
