"""The console that every verb prints to: colours and the terminal's width on a terminal, plain and uncut in a pipe."""

import os
from typing import TextIO

from rich.console import Console

from vitexp.machine.rank import is_first

# A pipe has no width: wide enough that no row is cut, so that `vitexp list runs | grep NAME` finds whole names.
PIPE_WIDTH = 400


def make_console(file: TextIO | None = None) -> Console:
    """A rich console in which text from data is only text: no markup, no emoji codes, no highlighting.

    Of the processes of a run only the first prints.

    Args:
        file: where to; standard output, as it is at each print, if None. $COLUMNS sets the width anywhere.
    """
    console = Console(file=file, markup=False, emoji=False, highlight=False, quiet=not is_first())
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = PIPE_WIDTH
    return console
