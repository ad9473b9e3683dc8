"""The data that a run was trained on, kept beside its checkpoints, and what has changed since."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vitexp.checkpoint.safe_io import DATA, SafeCheckpointIO
from vitexp.contract import Data, SupportsInventory
from vitexp.data.inventory import differences
from vitexp.errors import CheckpointError
from vitexp.machine.rank import is_first
from vitexp.run.folder import Run


def keep_data(run: Run, data: Data) -> None:
    """Write down what a data set holds, if it says so: `checkpoints/data.pt`, in the manifest as any checkpoint."""
    classes = list(data.class_names)
    if is_first() and isinstance(data, SupportsInventory):
        SafeCheckpointIO().save_checkpoint({"classes": classes, "splits": data.inventory()}, run.checkpoints / DATA)


def changes(run: Run, data: Data, *splits: str) -> list[str]:
    """Differences of the data set, or of some of its splits, to what the run was trained on, a phrase each.

    None of a run before inventories, or of a set that keeps none.

    Raises:
        CheckpointError: the record is damaged.
    """
    file, names = run.checkpoints / DATA, list(data.class_names)
    if not file.is_file() or not isinstance(data, SupportsInventory):
        return []
    classes, before = _parse(SafeCheckpointIO().load_checkpoint(file), str(file))
    after = data.inventory(*splits)
    renamed = _renamed(classes, names)
    kept = {split: columns for split, columns in before.items() if not splits or split in splits}
    return [*renamed, *differences(kept, after, renamed=bool(renamed))]


def _renamed(before: list[str], after: list[str]) -> list[str]:
    gone, came = ([name for name in one if name not in other] for one, other in ((before, after), (after, before)))
    if len(gone) == len(came) == 1:
        return [f"class '{gone[0]}' renamed '{came[0]}'"]
    found = [f"classes {word}: {', '.join(names[:3])}" for word, names in (("gone", gone), ("new", came)) if names]
    return found or (["the classes in another order"] if before != after else [])


def _parse(content: object, source: str) -> tuple[list[str], dict[str, Mapping[str, Tensor]]]:
    """Classes and inventory in a record, which may be a stranger's."""
    found = content if isinstance(content, dict) else {}
    classes, splits = found.get("classes"), found.get("splits")
    if not isinstance(classes, list) or not isinstance(splits, dict) or not all(map(_is_table, splits.values())):
        raise CheckpointError(f"{source} is no record of a data set; copy the run again, or remove the file")
    return list(map(str, classes)), splits


def _is_table(columns: object) -> bool:
    """Whether all columns are tensors with as many rows, and names are bytes."""
    if not isinstance(columns, dict):
        return False
    table: list[Any] = list(columns.values())
    if not all(isinstance(column, Tensor) and column.dim() > 0 for column in table):
        return False
    names = columns.get("names")
    readable = names is None or (names.dim() == 2 and names.dtype == torch.uint8 and names.shape[1] > 0)
    return readable and len({len(column) for column in table}) <= 1
