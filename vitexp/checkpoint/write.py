"""Weights as a safetensors file: written whole or not at all, with what they are in the header."""

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn


def save_weights(model: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the state dict of `model` in our names; `metadata` goes into the file's header.

    Raises:
        ResourceError: the file cannot be written (through the caller's folder checks).
    """
    save_tensors(model.state_dict(), path, metadata)


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write tensors by any names, as `save_weights` does."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    part = path.with_name(f".{path.name}.part")
    save_file(tensors, part, metadata=dict(metadata))
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
