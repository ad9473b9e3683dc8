"""`data.on_corrupt=skip`: the files of a split that can be read, the same ones in every epoch and every process.

All files are decoded once for it, as long as an epoch without training takes; splits are drawn before, so leaving a
file out moves no other one from one split into another.
"""

import logging
from typing import Any, TypeVar

import torch

from vitexp.data.file.inspect import damaged
from vitexp.data.pixels import Pixels
from vitexp.errors import DataError

_log = logging.getLogger(__name__)
_SHOWN = 3
_Source = TypeVar("_Source")


def without_damaged(source: _Source, pixels: Pixels) -> _Source:
    """The source without files that cannot be read; as it is if it has its pixels in memory.

    Raises:
        DataError: none can be read.
    """
    files: Any = source
    if not hasattr(files, "path") or not len(files):
        return source
    paths = [files.path(position) for position in range(len(files))]
    reasons = damaged(paths, channels=pixels.channels, max_pixels=pixels.max_pixels)
    whole = [position for position, reason in enumerate(reasons) if reason is None]
    if len(whole) == len(paths):
        return source
    left_out = [f"{path} ({reason})" for path, reason in zip(paths, reasons, strict=True) if reason is not None]
    if not whole:
        raise DataError(f"none of {len(paths)} files in {files.root} can be read: {left_out[0]}; see data.root")
    _log.warning(
        "data.on_corrupt=skip: %d of %d files are left out: %s%s",
        len(left_out),
        len(paths),
        ", ".join(left_out[:_SHOWN]),
        ", ..." if len(left_out) > _SHOWN else "",
    )
    kept: _Source = files.subset(torch.tensor(whole))
    return kept
