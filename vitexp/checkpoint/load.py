"""Weights into a model, strictly: every difference is either adapted and told, or an error that lists both sides."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from torch import Tensor, nn

from vitexp.checkpoint.origin import Origin, Tensors
from vitexp.checkpoint.read import read_tensors
from vitexp.contract import HasGrid, SupportsLoading
from vitexp.errors import CheckpointError
from vitexp.layer.head import head_names, num_classes_of, reset_head
from vitexp.layer.position import resize_position

_SHOWN = 4  # names of each side in an error


def load_weights(
    model: nn.Module, source: str | Path, *, position_method: str | None = None, new_head: bool = True
) -> list[str]:
    """Load a checkpoint of any known naming into `model`, in place.

    Args:
        model: what it offers of `SupportsLoading` and `HasGrid` is used.
        source: see `read_tensors`.
        position_method: how positions are resized; None as the file's origin does (ours: official).
        new_head: whether a head for other classes may be replaced by a zero one; if not, it is an error.

    Returns:
        One printable line for each tensor that was adapted, dropped or replaced.

    Raises:
        CheckpointError: unreadable, or different in any other way.
    """
    tensors, metadata = read_tensors(source)
    expected: Tensors = model.state_dict()
    lines: list[str] = []
    origin = _origin(model, tensors, source)
    if origin is not None:
        tensors = _translate(tensors, origin, lines)
    tensors, replaced = _without_other_head(model, tensors, expected, lines)
    if replaced and not new_head:
        raise CheckpointError(f"{source}: {lines[-1]}, which only training can use; use data with the same classes")
    skipped = set(head_names(model)) if replaced else set()
    _check_names(tensors, expected.keys() - skipped, source)
    method = position_method or (origin.position_method if origin else "official")
    if isinstance(model, SupportsLoading) and isinstance(model, HasGrid):
        for name, num_prefix in model.position_tables.items():
            tensors[name] = _fit_position(tensors[name], name, model.grid, num_prefix, method, metadata, lines)
    _adapt(model, tensors, expected, lines)
    _check_shapes(tensors, expected, source)
    lines += _conversions(tensors, expected)
    if replaced:
        reset_head(model, num_classes_of(model) or 0)
    model.load_state_dict(tensors | {name: model.state_dict()[name] for name in skipped})
    return lines


def export_names(model: nn.Module) -> Tensors:
    """The state dict of `model` under timm's names.

    Raises:
        CheckpointError: timm has no such model.
    """
    if (names := _names_module(model)) is None:
        raise CheckpointError(f"timm has no {type(model).__name__}; use to=safetensors or to=onnx")
    exported: Tensors = names.to_timm(model.state_dict())
    return exported


def _names_module(model: nn.Module) -> ModuleType | None:
    """The module that knows the foreign names of a model's tensors; None where there are none."""
    name = f"vitexp.checkpoint.names.{model.family}" if isinstance(model, SupportsLoading) else None
    return None if name is None or find_spec(name) is None else import_module(name)


def _origin(model: nn.Module, tensors: Tensors, source: str | Path) -> Origin | None:
    """The origin of the tensors' names; None for our own."""
    expected = model.state_dict().keys()
    names = _names_module(model)
    origins: tuple[Origin, ...] = () if names is None else names.ORIGINS
    found = next((origin for origin in origins if origin.fits(list(tensors))), None)
    if found is None and not expected & tensors.keys():
        known = ", ".join([f"a {type(model).__name__} of vitexp", *(origin.name for origin in origins)])
        raise CheckpointError(
            f"{source} does not name its tensors as {known}: it has {_some(tensors)}; "
            f"the model has {_some(expected)}; choose the model= that wrote the file"
        )
    return found


def _translate(tensors: Tensors, origin: Origin, lines: list[str]) -> Tensors:
    dropped = [name for name in tensors if re.search(origin.dropped, name)]
    lines += [f"{name}: dropped, the model has no such layer ({origin.name})" for name in dropped]
    lines += [f"{note} ({origin.name})" for note in origin.notes]
    return origin.translate({name: tensor for name, tensor in tensors.items() if name not in dropped})


def _without_other_head(
    model: nn.Module, tensors: Tensors, expected: Tensors, lines: list[str]
) -> tuple[Tensors, bool]:
    """The tensors without a head that does not fit, and whether the model needs a new one."""
    names, classes = head_names(model), num_classes_of(model) or 0
    if all(name in tensors and tensors[name].shape == expected[name].shape for name in names):
        return tensors, False
    found = [name for name in names if name in tensors]
    if odd := [name for name in found if tensors[name].ndim != expected[name].ndim]:
        shape = tuple(tensors[odd[0]].shape)
        raise CheckpointError(f"{odd[0]} has the shape {shape}, which no head has; give this model's weights")
    # A detector has logits besides those of the classes.
    given = [len(tensors[name]) - len(expected[name]) + classes for name in found]
    was = f"{given[0]} classes in the file" if given else "none in the file"
    lines.append(f"{', '.join(names)}: {was}, {classes} here: a new head that starts at zero")
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


def _adapt(model: nn.Module, tensors: Tensors, expected: Tensors, lines: list[str]) -> None:
    """Let the model fit what differs in shape, in place; what it cannot fit is left for the check of shapes."""
    if not isinstance(model, SupportsLoading):
        return
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
