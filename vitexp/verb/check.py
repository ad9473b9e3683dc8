"""`vitexp data check data=...`: a data set looked through before training; nothing is trained and nothing changed.

Counts and classes of each split, files that cannot be read, files that are unusual, and the same file (or, in memory,
the same pixels) in two splits. Exit code 3 if a file cannot be read.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from vitexp import build
from vitexp.config.command import Command
from vitexp.data.file.inspect import Inspection, each, inspect
from vitexp.errors import DataError
from vitexp.files.folder import whole
from vitexp.report.screen import say, show
from vitexp.report.text import clean

SPLITS = ("train", "val", "test")
SHOWN = 20


@dataclass
class SplitContents:
    """The contents of a split. digests: content -> one of the files with it."""

    images: int
    classes: Counter[str] = field(default_factory=Counter)
    damaged: dict[str, str] = field(default_factory=dict)
    odd: Counter[str] = field(default_factory=Counter)
    digests: dict[str, str] = field(default_factory=dict)


def check(command: Command) -> dict[str, Any]:
    """Look at every image once; prints a table, and writes it as JSON where `file=` says.

    Raises:
        DataError: some files cannot be read; the message lists the first ones.
    """
    cfg = command.cfg
    if "on_corrupt" in cfg.data:
        cfg.data.on_corrupt = "error"  # here every file is wanted
    data = build.make(cfg.data.module, trust=cfg.trust)
    data.prepare_data()
    splits = {split: found for split in SPLITS if (found := _split(data, split)) is not None}
    if not splits:
        raise DataError(f"data={cfg.chosen.data} has no images in {', '.join(SPLITS)}; see data.root")
    twice = _twice(splits)
    _print(splits, twice, quiet=cfg.quiet)
    damaged = {path: reason for found in splits.values() for path, reason in found.damaged.items()}
    if cfg.file is not None:
        with whole(Path(cfg.file)) as part:
            part.write_text(json.dumps(_record(splits, twice), indent=2) + "\n", encoding="utf-8")
    if damaged:
        listed = "".join(f"\n  {clean(path)}: {clean(reason)}" for path, reason in list(damaged.items())[:SHOWN])
        more = f"\n  and {len(damaged) - SHOWN} more" if len(damaged) > SHOWN else ""
        raise DataError(
            f"{len(damaged)} files cannot be read; replace or remove them, or leave them out of every epoch with"
            f" data.on_corrupt=skip:{listed}{more}"
        )
    return {"images": sum(found.images for found in splits.values()), "twice": len(twice)}


def _split(data: Any, split: str) -> SplitContents | None:
    try:
        source = data.source(split)
    except DataError as error:
        if str(error) == data.absent(split):
            return None
        raise
    found = SplitContents(len(source))
    names = data.class_names
    labels = source.labels
    if labels.ndim == 1:
        found.classes.update(names[label] for label in labels.tolist())
    if hasattr(source, "path"):
        _look(found, [source.path(position) for position in range(len(source))], data.pixels)
    else:
        for position, image in enumerate(source.images):
            found.digests.setdefault(hashlib.sha256(image.numpy().tobytes()).hexdigest(), f"image {position}")
    return found


def _look(found: SplitContents, paths: list[str], pixels: Any) -> None:
    looked: list[Inspection] = each(lambda p: inspect(p, channels=pixels.channels, max_pixels=pixels.max_pixels), paths)
    for path, one in zip(paths, looked, strict=True):
        found.odd.update(one.odd)
        if one.damage is not None:
            found.damaged[path] = one.damage
        else:
            found.digests.setdefault(one.digest, path)


def _twice(splits: Mapping[str, SplitContents]) -> list[tuple[str, str]]:
    """Pairs of equal images in different splits."""
    pairs = []
    names = list(splits)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            both = splits[first].digests.keys() & splits[second].digests.keys()
            pairs += [
                (f"{first}: {splits[first].digests[key]}", f"{second}: {splits[second].digests[key]}")
                for key in sorted(both, key=splits[first].digests.__getitem__)
            ]
    return pairs


def _print(splits: Mapping[str, SplitContents], twice: list[tuple[str, str]], *, quiet: bool) -> None:
    table = Table("split", "images", "classes", "smallest class", "largest class", "unreadable", "unusual")
    for split, found in splits.items():
        order = found.classes.most_common()
        ends = [f"{clean(name)}: {count}" for name, count in (order[-1], order[0])] if order else ["", ""]
        odd = ", ".join(f"{count} {name}" for name, count in found.odd.most_common()) or "none"
        table.add_row(split, f"{found.images:,}", str(len(found.classes)), *ends, str(len(found.damaged)), odd)
    show(table, quiet=quiet)
    for first, second in twice[:SHOWN]:
        say(f"the same image twice: {first} and {second}", quiet=quiet)
    if len(twice) > SHOWN:
        say(f"and {len(twice) - SHOWN} more that stand in two splits", quiet=quiet)


def _record(splits: Mapping[str, SplitContents], twice: list[tuple[str, str]]) -> dict[str, Any]:
    return {
        **{
            split: {
                "images": found.images,
                "classes": dict(found.classes),
                "unreadable": found.damaged,
                "unusual": dict(found.odd),
            }
            for split, found in splits.items()
        },
        "twice": [list(pair) for pair in twice],
    }
