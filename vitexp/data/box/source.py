"""A split of a detection set as it is stored: image files, and the boxes of each in one flat table.

What annotations from elsewhere may hold is decided here, once, when they are read; nothing is left to fail at a later
step:

| found | then |
|---|---|
| an image file that is absent | DataError with the number and the first names |
| a category that the set does not list | DataError with the annotation and the ids there are |
| a box that is not four finite numbers, has no area, or lies outside its image | left out, one warning with the count |
| a box that reaches beyond its image | cut at the edge |
| an annotation of an image that is not listed | left out, counted in the same warning |
| an image without boxes | kept |
| a crowd | not trained on, kept for evaluation, where it excuses detections |
"""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vitexp import seeding
from vitexp.data.inventory import digests, of_files
from vitexp.data.source import Files
from vitexp.errors import DataError

_log = logging.getLogger(__name__)
_SHOWN = 3
_LONGEST, _NAME_CHARS, _NUMBERS = 1_000_000, 1000, 2**63


@dataclass(frozen=True, eq=False)
class BoxSource(Files):
    """Image files below `root`, with objects.

    names: bytes (N,), relative to `root`; sizes: (height, width) that boxes refer to, int64 (N, 2); ids: the images'
    ids in the file, int64 (N,); starts: int64 (N + 1,), image i has the objects starts[i] to starts[i + 1];
    boxes: corners in pixels, float32 (M, 4); labels: int64 (M,); areas: float32 (M,), of the segment where there is
    one; crowds: bool (M,); keys: int64 (N,), each image's number in the whole set.
    """

    root: Path
    names: np.ndarray
    sizes: Tensor
    ids: Tensor
    starts: Tensor
    boxes: Tensor
    labels: Tensor
    areas: Tensor
    crowds: Tensor
    keys: Tensor

    def objects(self, position: int) -> slice:
        """The rows of the flat tables that belong to the image at a position."""
        return slice(int(self.starts[position]), int(self.starts[position + 1]))

    def subset(self, positions: Tensor) -> "BoxSource":
        rows = [torch.arange(int(self.starts[p]), int(self.starts[p + 1])) for p in positions.tolist()]
        counts = torch.tensor([0, *(len(row) for row in rows)])
        flat = torch.cat(rows) if rows else torch.empty(0, dtype=torch.int64)
        return BoxSource(
            root=self.root,
            names=self.names[positions.numpy()],
            sizes=self.sizes[positions],
            ids=self.ids[positions],
            starts=counts.cumsum(0),
            boxes=self.boxes[flat],
            labels=self.labels[flat],
            areas=self.areas[flat],
            crowds=self.crowds[flat],
            keys=self.keys[positions],
        )

    def inventory(self) -> dict[str, Tensor]:
        table = (self.labels, self.boxes, self.areas, self.crowds)
        flat = digests(torch.cat([column.double().reshape(len(self.labels), -1) for column in table], 1))
        image = torch.repeat_interleave(torch.arange(len(self)), self.starts.diff())
        objects = torch.zeros(len(self), dtype=torch.int64).index_add_(0, image, flat)
        return {**of_files(self.root, self.names), "objects": objects}

    def hold_out(self, fraction: float) -> tuple["BoxSource", "BoxSource"]:
        """(kept, held out): round(N * fraction) images, chosen by a hash of their place, whatever the run's seed."""
        keys = seeding.sample_keys(seeding.SPLIT, 0, torch.arange(len(self)))
        held = torch.zeros(len(self), dtype=torch.bool)
        held[keys.argsort(stable=True)[: round(fraction * len(self))]] = True
        return self.subset((~held).nonzero().flatten()), self.subset(held.nonzero().flatten())


@dataclass
class BoxReader:
    """Collects images and their objects, decides on each, and gives a BoxSource.

    where: the annotation file, for messages. num_classes: labels are below it.
    """

    where: Path
    root: Path
    num_classes: int
    names: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    _objects: list[list[tuple[list[float], int, float, bool]]] = field(default_factory=list)

    def image(self, name: str, *, height: int, width: int, number: int) -> int:
        """Add an image; returns its position."""
        if not (1 <= height <= _LONGEST and 1 <= width <= _LONGEST):
            raise DataError(f"{self.where}: image {name} has size {width}x{height}; correct its width and height")
        if name.startswith("/") or ".." in name.split("/") or "\0" in name or len(name) > _NAME_CHARS:
            raise DataError(
                f"{self.where}: the file name {name[:80]} leads out of {self.root}, or is none; name files in it"
            )
        if not -_NUMBERS < number < _NUMBERS:
            raise DataError(f"{self.where}: the id of image {name} has more than 64 bits; correct it")
        self.names.append(name)
        self.sizes.append((height, width))
        self.ids.append(number)
        self._objects.append([])
        return len(self.names) - 1

    def skip(self, reason: str) -> None:
        """Count an annotation that is left out."""
        self.left_out[reason] += 1

    def box(self, position: int, corners: Sequence[float], *, label: int, area: float, crowd: bool) -> None:
        """Add an object of the image at `position`, corners in pixels, unless it is none."""
        height, width = self.sizes[position]
        if len(corners) != 4 or not np.isfinite(corners).all():
            return self.skip("not four finite numbers")
        left, top, right, bottom = (float(value) for value in corners)
        if right <= left or bottom <= top:
            return self.skip("no area")
        left, right = max(left, 0.0), min(right, float(width))
        top, bottom = max(top, 0.0), min(bottom, float(height))
        if right <= left or bottom <= top:
            return self.skip("outside its image")
        self._objects[position].append(([left, top, right, bottom], label, area, crowd))
        return None

    def finish(self) -> BoxSource:
        """The source, its files checked, with one warning for all that was left out."""
        self._require_files()
        if self.left_out:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.left_out.items()))
            _log.warning("%s: %d boxes are left out: %s", self.where, sum(self.left_out.values()), reasons)
        flat = [item for objects in self._objects for item in objects]
        counts = torch.tensor([0, *(len(objects) for objects in self._objects)])
        return BoxSource(
            root=self.root,
            names=np.array([os.fsencode(name) for name in self.names], dtype=np.bytes_),
            sizes=torch.tensor(self.sizes, dtype=torch.int64).reshape(-1, 2),
            ids=torch.tensor(self.ids, dtype=torch.int64),
            starts=counts.cumsum(0),
            boxes=torch.tensor([item[0] for item in flat], dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor([item[1] for item in flat], dtype=torch.int64),
            areas=torch.tensor([item[2] for item in flat], dtype=torch.float32),
            crowds=torch.tensor([item[3] for item in flat], dtype=torch.bool),
            keys=torch.arange(len(self.names)),
        )

    def _require_files(self) -> None:
        if not self.names:
            raise DataError(f"{self.where} lists no images; name another annotation file, or data.root")
        there: dict[str, set[str]] = {}
        absent = []
        for name in self.names:
            folder, file = os.path.split(name)
            if folder not in there:
                path = self.root / folder
                there[folder] = set(os.listdir(path)) if path.is_dir() else set()
            if file not in there[folder]:
                absent.append(name)
        if absent:
            some = ", ".join(absent[:_SHOWN]) + (", ..." if len(absent) > _SHOWN else "")
            raise DataError(
                f"{len(absent)} of {len(self.names)} images of {self.where} are not in {self.root} ({some}); fetch "
                "them, or take them out of the annotations"
            )
