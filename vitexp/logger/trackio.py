"""Trackio: a run in its local SQLite files ($TRACKIO_DIR), to be seen by `trackio show`.

A resume goes on with the same run; the steps that it repeats stand there twice, with the same values.
"""

import io
import sqlite3
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from vitexp.logger.tracker import Session


class Trackio:
    """Its own thread writes, twice a second; what it prints is kept back."""

    name = "trackio"
    errors = (OSError, sqlite3.Error, ValueError)

    def __init__(self, settings: Mapping[str, Any], session: Session) -> None:
        """Begin the run, or go on with it: by its name, as Trackio does."""
        import trackio

        known = session.ids.get(self.name)
        self.id = known or "/".join(filter(None, (session.group, session.run_name)))
        self._trackio = trackio
        with redirect_stdout(io.StringIO()):
            self._run = trackio.init(
                project=settings["project"],
                name=self.id,
                group=session.group,
                config=dict(session.config),
                resume="allow" if known else "never",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Hand the values to the thread."""
        self._run.log(dict(metrics), step=step)

    def picture(self, name: str, path: Path, step: int) -> None:
        """Copy a PNG."""
        self._run.log({name: self._trackio.Image(str(path))}, step=step)

    def finish(self, exit_code: int) -> None:
        """Write what is left. Trackio keeps no exit code."""
        with redirect_stdout(io.StringIO()):
            self._trackio.finish()


def start(settings: Mapping[str, Any], session: Session) -> Trackio:
    """The run there."""
    return Trackio(settings["trackio"], session)
