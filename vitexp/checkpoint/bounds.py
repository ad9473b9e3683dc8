"""The claims of a weights file against its bytes, before memory is taken for them; a stranger may have written it.

A file of weights is about as large as its tensors. What claims far more is refused unread: compressed entries that
unpack to much more than they are, arrays larger than their entry, tensors that repeat a few bytes by a stride of 0.
"""

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from vitexp.errors import CheckpointError, ResourceError

# Arrays of zeros compress well, and some weights begin as zeros; a bomb of a few MiB does not fit below this.
_UNPACKED, _RATIO = 64 * 2**20, 8
# A model beside its weights: a head for more classes, parameters that a regime adds.
_MORE, _PARAMETERS, _TENSORS = 4, 50_000_000, 2_000


def require_honest_zip(path: Path, *, stored: bool) -> None:
    """Look at the directory of a zip archive, which npz and torch's files are; any other file passes.

    Raises:
        CheckpointError: an entry is encrypted, or compressed though `stored` is asked, or all of them unpack to more
            than 8 times the file and 64 MiB.
        zipfile.BadZipFile: the directory is damaged.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    for entry in entries:
        if entry.flag_bits & 1 or (stored and entry.compress_type != zipfile.ZIP_STORED):
            kind = "encrypted" if entry.flag_bits & 1 else "compressed"
            raise CheckpointError(
                f"{path}: {entry.filename} is {kind}, which torch.save writes no entry; save it again"
            )
    size, unpacked = path.stat().st_size, sum(entry.file_size for entry in entries)
    if unpacked > max(_RATIO * size, size + _UNPACKED):
        raise CheckpointError(
            f"{path} has {size:,} bytes and unpacks to {unpacked:,}, so it is no file of weights; save it again as"
            " .safetensors"
        )


def require_honest_arrays(archive: zipfile.ZipFile, path: Path) -> None:
    """Read the headers of the npy entries of an npz file.

    Raises:
        CheckpointError: one holds objects, or its shape claims other bytes than it has.
    """
    from numpy.lib import format as npy

    for entry in archive.infolist():
        with archive.open(entry) as stream:
            version = npy.read_magic(stream)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = read(stream)
            here = entry.file_size - stream.tell()
        claimed = math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise CheckpointError(
                f"{path}: {entry.filename} is damaged or holds objects, not numbers; save plain arrays"
            )
        if claimed != here:
            raise CheckpointError(f"{path}: {entry.filename} claims {claimed:,} bytes and has {here:,}; copy it again")


def require_honest_tensors(content: object, path: Path) -> None:
    """Look through what torch.load gave.

    Raises:
        CheckpointError: a tensor is sparse, quantised, nested or without data, or has more elements than bytes stand
            behind it; or all of them together claim more than 4 times the file.
    """
    total = 0
    for name, tensor in _tensors(content, ""):
        kind = _odd_kind(tensor)
        if kind is not None:
            raise CheckpointError(f"{path}: {name} is {kind}; save plain dense tensors")
        size = tensor.numel() * tensor.element_size()
        if size > tensor.untyped_storage().nbytes():
            raise CheckpointError(f"{path}: {name} {tuple(tensor.shape)} repeats few bytes; save its contiguous copy")
        total += size
    if total > _MORE * path.stat().st_size:
        raise CheckpointError(f"{path} claims {total:,} bytes of tensors, far more than it has; copy it again")


def _tensors(content: object, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield name or "it", content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, list | tuple | set):
        for index, value in enumerate(content):
            yield from _tensors(value, f"{name}[{index}]")


def _odd_kind(tensor: Tensor) -> str | None:
    if tensor.is_nested:
        return "nested"
    if tensor.layout is not torch.strided:
        return f"of layout {str(tensor.layout).removeprefix('torch.')}"
    if tensor.is_quantized:
        return "quantised"
    return f"on device {tensor.device}" if tensor.device.type != "cpu" else None


@contextmanager
def not_far_larger(path: Path, tensors: int) -> Iterator[None]:
    """Build a model whose weights stand in a file: stop once it has far more than its `tensors` or bytes.

    Raises:
        CheckpointError: it has. No more time and memory were taken than the file warrants.
    """
    elements = path.stat().st_size
    count = size = 0

    def note(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal count, size
        count, size = count + 1, size + (0 if parameter is None else parameter.numel())
        if count > _MORE * tensors + _TENSORS or size > _MORE * elements + _PARAMETERS:
            raise CheckpointError(
                f"the model has far more parameters than {path} of {elements:,} bytes and {tensors:,} tensors; use the"
                " model that the file belongs to"
            )

    handle = register_module_parameter_registration_hook(note)
    try:
        yield
    finally:
        handle.remove()


def most_tensors(path: Path) -> int:
    """The number of tensors that a file can hold, by its header or directory; a file without one is of few."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return len(archive.infolist())
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt", device="cpu") as file:
            return len(file.keys())
    return _TENSORS


@contextmanager
def naming_memory(path: Path) -> Iterator[None]:
    """Raise ResourceError, which names the file, where memory gives out while it is read."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        size = path.stat().st_size
        raise ResourceError(
            f"out of memory while reading {path} of {size:,} bytes; free memory, or read it on a larger machine"
        ) from error
