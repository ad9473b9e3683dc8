"""Weights into a model, strictly: every difference is either adapted and told, or an error that lists both sides."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from vitexp.checkpoint.origin import Origin, Tensors
from vitexp.checkpoint.read import read_tensors
from vitexp.errors import CheckpointError
from vitexp.layer.position import resize_position

_SHOWN = 4  # names of each side in an error


class Loadable(Protocol):
    """The attributes that loading reads off a model, besides its state dict.

    Attributes:
        family: there is a module `vitexp.checkpoint.names.<family>` with the foreign names.
        head_names: tensors whose shape depends on the number of classes.
        position_tables: name -> number of prefix rows of each learned table (1, P + h*w, D) over `grid`.
        num_classes: of the head.
    """

    family: str
    head_names: tuple[str, ...]
    position_tables: dict[str, int]
    grid: tuple[int, int]
    num_classes: int

    def reset_head(self, num_classes: int) -> None:
        """Put a zero head in place."""

    def adapt(self, name: str, tensor: Tensor) -> tuple[Tensor, str] | None:
        """A tensor saved at another size made to fit, and how; None if it cannot be."""

    def state_dict(self) -> Any:
        """Tensors by name."""

    def load_state_dict(self, state_dict: Tensors) -> Any:
        """Take them in, strictly."""


def load_weights(
    model: Any, source: str | Path, *, position_method: str | None = None, new_head: bool = True
) -> list[str]:
    """Load a checkpoint of any known naming into `model`, in place.

    Args:
        model: offers what `Loadable` lists.
        source: see `read_tensors`.
        position_method: how positions are resized; None as the file's origin does (ours: official).
        new_head: whether a head for other classes may be replaced by a zero one; if not, it is an error.

    Returns:
        One printable line for each tensor that was adapted, dropped or replaced.

    Raises:
        CheckpointError: unreadable, or different in any other way.
    """
    tensors, metadata = read_tensors(source)
    target: Loadable = model
    expected: Tensors = target.state_dict()
    lines: list[str] = []
    origin = _origin(target, tensors, source)
    if origin is not None:
        tensors = _translate(tensors, origin, lines)
    tensors, replaced = _without_other_head(target, tensors, expected, lines)
    if replaced and not new_head:
        raise CheckpointError(f"{source}: {lines[-1]}, which only training can use; use data with the same classes")
    skipped = set(target.head_names) if replaced else set()
    _check_names(tensors, expected.keys() - skipped, source)
    method = position_method or (origin.position_method if origin else "official")
    for name, num_prefix in target.position_tables.items():
        tensors[name] = _fit_position(tensors[name], name, target.grid, num_prefix, method, metadata, lines)
    _adapt(target, tensors, expected, lines)
    _check_shapes(tensors, expected, source)
    lines += _conversions(tensors, expected)
    if replaced:
        target.reset_head(target.num_classes)
    target.load_state_dict(tensors | {name: target.state_dict()[name] for name in skipped})
    return lines


def export_names(model: Any) -> Tensors:
    """The state dict of `model` under timm's names."""
    exported: Tensors = _names_module(model).to_timm(model.state_dict())
    return exported


def _names_module(model: Any) -> Any:
    return import_module(f"vitexp.checkpoint.names.{model.family}")


def _origin(model: Loadable, tensors: Tensors, source: str | Path) -> Origin | None:
    """The origin of the tensors' names; None for our own."""
    expected = model.state_dict().keys()
    origins: tuple[Origin, ...] = _names_module(model).ORIGINS
    found = next((origin for origin in origins if origin.fits(list(tensors))), None)
    if found is None and not expected & tensors.keys():
        known = ", ".join(origin.name for origin in origins)
        raise CheckpointError(
            f"{source} does not name its tensors as a {model.family} of vitexp, {known}: it has {_some(tensors)}; "
            f"the model has {_some(expected)}; choose the model= that wrote the file"
        )
    return found


def _translate(tensors: Tensors, origin: Origin, lines: list[str]) -> Tensors:
    dropped = [name for name in tensors if re.search(origin.dropped, name)]
    lines += [f"{name}: dropped, the model has no such layer ({origin.name})" for name in dropped]
    lines += [f"{note} ({origin.name})" for note in origin.notes]
    return origin.translate({name: tensor for name, tensor in tensors.items() if name not in dropped})


def _without_other_head(model: Loadable, tensors: Tensors, expected: Tensors, lines: list[str]) -> tuple[Tensors, bool]:
    """The tensors without a head that does not fit, and whether the model needs a new one."""
    names = model.head_names
    if all(name in tensors and tensors[name].shape == expected[name].shape for name in names):
        return tensors, False
    # A detector has logits besides those of the classes.
    given = [len(tensors[name]) - len(expected[name]) + model.num_classes for name in names if name in tensors]
    was = f"{given[0]} classes in the file" if given else "none in the file"
    lines.append(f"{', '.join(names)}: {was}, {model.num_classes} here: a new head that starts at zero")
    return {name: tensor for name, tensor in tensors.items() if name not in names}, True


def _check_names(tensors: Tensors, expected: Iterable[str], source: str | Path) -> None:
    expected = set(expected)
    missing, unexpected = sorted(expected - tensors.keys()), sorted(tensors.keys() - expected)
    if missing or unexpected:
        raise CheckpointError(
            f"{source} does not fit the model: {len(missing)} tensors are missing from the file ({_some(missing)}), "
            f"{len(unexpected)} have no place in the model ({_some(unexpected)}); choose the model=, pool and depth "
            "that the file was trained with"
        )


def _adapt(model: Loadable, tensors: Tensors, expected: Tensors, lines: list[str]) -> None:
    """Let the model fit what differs in shape, in place; what it cannot fit is left for the check of shapes."""
    for name in [name for name in tensors if tensors[name].shape != expected[name].shape]:
        if (fitted := model.adapt(name, tensors[name])) is not None:
            tensors[name], how = fitted
            lines.append(f"{name}: {how}")


def _check_shapes(tensors: Tensors, expected: Tensors, source: str | Path) -> None:
    wrong = [name for name in tensors if tensors[name].shape != expected[name].shape]
    if wrong:
        shown = "; ".join(f"{n}: {_shape(tensors[n])} in the file, {_shape(expected[n])} here" for n in wrong[:_SHOWN])
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise CheckpointError(
            f"{source} does not fit the model: {len(wrong)} tensors differ in shape ({shown}{more}); "
            "choose the model= and patch size that the file was trained with"
        )


def _conversions(tensors: Tensors, expected: Tensors) -> list[str]:
    """A line for each pair of number formats that are converted on copying."""
    pairs = Counter((t.dtype, expected[name].dtype) for name, t in tensors.items() if t.dtype != expected[name].dtype)
    return [f"{count} tensors: {str(a)[6:]} in the file, {str(b)[6:]} here" for (a, b), count in pairs.items()]


def _fit_position(
    table: Tensor,
    name: str,
    grid: tuple[int, int],
    num_prefix: int,
    method: str,
    metadata: dict[str, str],
    lines: list[str],
) -> Tensor:
    """A table of positions for the model's grid; what cannot be a table is left for the check of shapes."""
    if table.ndim != 3:
        return table
    old = _old_grid(table.shape[1] - num_prefix, grid, metadata)
    if old is None and num_prefix and (old := _old_grid(table.shape[1], grid, metadata)):
        # Its code adds positions before it puts the class token in front: the same as positions of zero there.
        table = _with_zero_prefix(table, num_prefix)
        lines.append(f"{name}: {num_prefix} zero row(s) put in front, the file has positions for patches only")
    if old is None or old == grid:
        return table
    lines.append(f"{name}: resized from {old[0]}x{old[1]} to {grid[0]}x{grid[1]} patches (position_method={method})")
    return resize_position(table, old_grid=old, new_grid=grid, num_prefix=num_prefix, method=method)


def _with_zero_prefix(table: Tensor, num_prefix: int) -> Tensor:
    padded = table.new_zeros(table.shape[0], table.shape[1] + num_prefix, table.shape[2])
    padded[:, num_prefix:] = table
    return padded


def _old_grid(cells: int, grid: tuple[int, int], metadata: dict[str, str]) -> tuple[int, int] | None:
    """The grid of a table of `cells` rows: as the file says, else the model's own, else a square; None if none fits."""
    if said := re.fullmatch(r"(\d+)x(\d+)", metadata.get("grid", "")):
        height, width = int(said[1]), int(said[2])
        return (height, width) if height * width == cells else None
    if cells == grid[0] * grid[1]:
        return grid
    side = math.isqrt(max(cells, 0))
    return (side, side) if side and side * side == cells else None


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f", ... {len(names)} in all" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "none"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
