"""`data.on_corrupt=skip`: the files of a split that can be read, the same ones in every epoch and every process.

All files are decoded once for it, as long as an epoch without training takes; splits are drawn before, so leaving a
file out moves no other one from one split into another.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from vitexp.data.file.inspect import damaged
from vitexp.data.pixels import Pixels
from vitexp.errors import DataError

_log = logging.getLogger(__name__)
_SHOWN = 3


def intact(paths: Sequence[str], pixels: Pixels, *, where: Path) -> list[int]:
    """Positions of the files that can be read. Raises DataError if none of some can; `where` is their folder."""
    reasons = damaged(paths, channels=pixels.channels, max_pixels=pixels.max_pixels)
    left_out = [f"{path} ({reason})" for path, reason in zip(paths, reasons, strict=True) if reason is not None]
    if left_out and len(left_out) == len(paths):
        raise DataError(f"none of {len(paths)} files in {where} can be read: {left_out[0]}; see data.root")
    if left_out:
        _log.warning(
            "data.on_corrupt=skip: %d of %d files are left out: %s%s",
            len(left_out),
            len(paths),
            ", ".join(left_out[:_SHOWN]),
            ", ..." if len(left_out) > _SHOWN else "",
        )
    return [position for position, reason in enumerate(reasons) if reason is None]
