"""Weights as a safetensors file: written whole or not at all, with what they are in the header."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from vitexp.contract import HasGrid
from vitexp.errors import ResourceError
from vitexp.files.folder import whole


def save_weights(model: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the state dict of `model` in our names; `metadata` goes into the file's header, and the model's grid.

    Raises:
        ResourceError: no room, or no permission; a file that was there is untouched.
    """
    grid = {"grid": "x".join(map(str, model.grid))} if isinstance(model, HasGrid) and model.grid else {}
    save_tensors(model.state_dict(), path, {**metadata, **grid})


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write tensors by any names, as `save_weights` does."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with whole(path) as part:
            save_file(tensors, part, metadata=dict(metadata))
    except (OSError, SafetensorError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ResourceError(f"cannot write {path}: {reason}; free space there or fix the permission") from error
