"""The content of a data set in a few bytes a sample, so that a resumed run notices when it is another one.

An inventory is split -> column -> tensor with a row a sample:

| column | holds | of |
|---|---|---|
| `names` | the file below the split's folder, as bytes: uint8 (N, W) | files |
| `sizes` | bytes of the file, -1 where it was not looked at: int64 (N,) | files |
| `content` | a digest of the pixels, or of the file: int64 (N,) | sets in memory, small sets of files |
| `labels` | class ids (N,), or bool (N, K) | classification |
| `objects` | a digest of labels and boxes: int64 (N,) | boxes |

Of a set of more than `SMALL` files the content is not read, and of more than `LOOKED_AT` only so many sizes are asked
for, chosen by their names: a million files cost seconds. A file that changes and keeps its length is not noticed there.
"""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vitexp import seeding
from vitexp.files.plain import open_plain

Columns = Mapping[str, Tensor]
SMALL, SMALL_BYTES, LOOKED_AT = 4096, 64 * 2**20, 100_000
_CHUNK = 4096  # rows whose digests are computed together
_SHOWN = 3
_SAID = {
    "sizes": "of another size",
    "content": "with other pixels",
    "labels": "with another label",
    "objects": "with other objects",
}


def digests(rows: Tensor) -> Tensor:
    """A digest of each row: (N, D, ...) of any type -> int64 (N,). By chance two that differ are equal in 1 of 2^64."""
    flat = rows.flatten(1).contiguous().view(torch.uint8)
    flat = F.pad(flat, (0, -flat.shape[1] % 8))
    weights = seeding.sample_keys(seeding.SAMPLE, 0, torch.arange(flat.shape[1] // 8)) | 1
    sums = [(part.view(torch.int64) * weights).sum(1) for part in flat.split(_CHUNK)]
    return seeding.sample_keys(seeding.SAMPLE, 1, torch.cat(sums)) if sums else torch.empty(0, dtype=torch.int64)


def of_files(root: str | os.PathLike[str], names: np.ndarray) -> dict[str, Tensor]:
    """The columns of files below `root`; names: bytes (N,)."""
    width = max(names.dtype.itemsize, 1)
    text = torch.from_numpy(np.ascontiguousarray(names).view(np.uint8).reshape(len(names), width).copy())
    looked = range(len(names)) if len(names) <= LOOKED_AT else digests(text).argsort()[:LOOKED_AT].tolist()
    folder = os.fsencode(root)
    sizes = torch.full((len(names),), -1, dtype=torch.int64)
    sizes[torch.tensor(looked, dtype=torch.int64)] = torch.tensor(
        [_size(os.path.join(folder, names[row])) for row in looked], dtype=torch.int64
    )
    columns = {"names": text, "sizes": sizes}
    if len(names) <= SMALL and sizes.sum() <= SMALL_BYTES and (sizes >= 0).all():
        columns["content"] = torch.tensor([_content(os.path.join(folder, name)) for name in names], dtype=torch.int64)
    return columns


def _size(path: bytes) -> int:
    try:
        found = os.stat(path)
    except OSError:  # reading it will say so
        return -1
    return found.st_size if stat.S_ISREG(found.st_mode) else -1


def _content(path: bytes) -> int:
    with open_plain(path) as file:
        return int.from_bytes(blake2b(file.read(), digest_size=8).digest(), "little", signed=True)


def differences(before: Mapping[str, Columns], after: Mapping[str, Columns], *, renamed: bool = False) -> list[str]:
    """Changes from one inventory to another, a phrase each; none if nothing differs.

    Args:
        before, after: inventories.
        renamed: whether classes have other names now, which changes labels and the folders that files lie in.
    """
    splits = list(dict.fromkeys([*before, *after]))
    if all(_equal(before.get(split, {}), after.get(split, {})) for split in splits):
        return []
    was, now = ({split: _rows(found.get(split, {})) for split in splits} for found in (before, after))
    gone = {split: [name for name in was[split] if name not in now[split]] for split in splits}
    came = {split: [name for name in now[split] if name not in was[split]] for split in splits}
    left, arrived = ({name for names in side.values() for name in names} for side in (gone, came))
    moved = {name for name in left & arrived if isinstance(name, str)}
    found = [f"{len(moved)} {_files(list(moved))} in another split{_named(list(moved))}"] if moved else []
    for split in splits:
        for names, word in ((gone, "fewer"), (came, "more")):
            if some := [name for name in names[split] if name not in moved]:
                found.append(f"{len(some)} {_files(some)} {word} in {split}{_named(some)}")
        both = [name for name in was[split] if name in now[split]]
        rows = [torch.tensor([side[split][name] for name in both], dtype=torch.int64) for side in (was, now)]
        pair = [(side.get(split, {}), row) for side, row in zip((before, after), rows, strict=True)]
        found += [f"{split}: {text}" for text in _changed(both, pair, renamed=renamed)]
    return found


def _changed(names: Sequence[str | int], pair: Sequence[tuple[Columns, Tensor]], *, renamed: bool) -> Iterator[str]:
    """Phrases on samples that both inventories of a split have, at these rows; each sample once."""
    (before, old), (after, new) = pair
    seen = torch.zeros(len(names), dtype=torch.bool)
    for column, said in _SAID.items():
        if column not in before or column not in after or (renamed and column == "labels"):
            continue
        first, second = before[column][old], after[column][new]
        differs = torch.ones(len(names), dtype=torch.bool)
        if first.shape == second.shape:
            differs = (first != second).unsqueeze(1).flatten(1).any(1)
        if column == "sizes":
            differs &= (first >= 0) & (second >= 0)
        differs &= ~seen
        seen |= differs
        if rows := differs.nonzero().flatten().tolist():
            some = [names[row] for row in rows]
            yield f"{len(rows)} {_files(some)} {said}{_named(some)}"


def _equal(before: Columns, after: Columns) -> bool:
    """Whether nothing differs, without a look at each sample."""
    if before.keys() != after.keys():
        return False
    return all(torch.equal(column, after[name]) for name, column in before.items())


def _rows(columns: Columns) -> Mapping[str | int, int]:
    """The row of each sample by its file, or by its place where it has none."""
    if "names" not in columns:
        return {row: row for row in range(len(next(iter(columns.values()), ())))}
    text = columns["names"].contiguous().numpy()
    names = text.view(f"S{text.shape[1]}").ravel()
    return {os.fsdecode(name): row for row, name in enumerate(names)}


def _files(names: Sequence[object]) -> str:
    plural = "" if len(names) == 1 else "s"
    return f"{'file' if isinstance(names[0], str) else 'image'}{plural}"


def _named(names: Sequence[object]) -> str:
    if not isinstance(names[0], str):
        return ""
    return f" ({', '.join(sorted(map(str, names))[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"
