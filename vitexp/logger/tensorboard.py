"""TensorBoard: events in `tensorboard/` of the run folder, flushed by time instead of at every row."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from vitexp.logger.tracker import Session


class TensorBoard:
    """One file of events a session; rows past the checkpoint of a resume are hidden."""

    name = "tensorboard"
    id = None
    errors = ()

    def __init__(self, folder: Path, *, flush_seconds: float, purge_step: int | None) -> None:
        """`purge_step`: rows from this step on, of an earlier session, are hidden."""
        self._writer = SummaryWriter(folder, purge_step=purge_step, flush_secs=flush_seconds)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Add the values."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, name: str, path: Path, step: int) -> None:
        """Add a PNG."""
        with Image.open(path) as image:
            self._writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def finish(self, exit_code: int) -> None:
        """Write what is left."""
        self._writer.close()


def start(settings: Mapping[str, Any], session: Session) -> TensorBoard:
    """Go on in the run folder."""
    purge = None if session.resume_step is None else session.resume_step + 1
    return TensorBoard(session.run_dir / "tensorboard", purge_step=purge, **settings["tensorboard"])
