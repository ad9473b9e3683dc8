"""The one place where weights are read: local files and `hf:` repositories, never a pickle that runs code."""

import re
import struct
import zipfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from pickle import PickleError  # the exception only: torch.load(weights_only=True) is what reads
from typing import Any

import torch
from torch import Tensor

from vitexp.checkpoint.bounds import (
    most_tensors,
    naming_memory,
    not_far_larger,
    require_honest_arrays,
    require_honest_tensors,
    require_honest_zip,
)
from vitexp.errors import CheckpointError, ConfigError, VitexpError, first_line, require_extra
from vitexp.files.strict_json import parse_json

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".npz")
_HUB_FILE = "model.safetensors"
# What a damaged or foreign file makes the readers raise: torch alone raises all of these.
_DAMAGED = (
    RuntimeError,
    PickleError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    struct.error,
    zipfile.BadZipFile,
)
# Modules that a training script wraps around a model, and that leave their name in every tensor's.
_WRAPPERS = ("module.", "model.")
_INNER_WRAPPERS = re.compile(r"_orig_mod\.|_checkpoint_wrapped_module\.|_fsdp_wrapped_module\.")


def read_tensors(source: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, on the CPU, and the metadata of the file (empty where the format has none).

    Args:
        source: a path that ends in one of `SUFFIXES`, or `hf:<owner>/<name>` with an optional `@<revision>`.

    Raises:
        ConfigError: an address instead of a file, or a kind of file that is not read.
        CheckpointError: absent, damaged, unreachable, or without tensors.
    """
    path = _local(source)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix == ".npz":
        return _read_npz(path), {}
    return unwrap(load_torch(path), path), {}


def read_metadata(source: str | Path) -> dict[str, str]:
    """The metadata of a local safetensors file, read without its tensors; empty for any other source."""
    path = Path(source).expanduser()
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return dict(file.metadata() or {})
    except OSError as error:
        raise _unreadable(path, error) from error
    except (SafetensorError, *_DAMAGED) as error:
        raise _damaged(path, error) from error


def read_classes(source: str | Path) -> list[str] | None:
    """The names of the classes that a weights file of vitexp's states; None for any other."""
    text = read_metadata(source).get("classes")
    if text is None:
        return None
    return parse_json(text, list, source=f"classes of {source}", error=CheckpointError, advice="copy the file again")


def building_for(source: str | Path | None) -> AbstractContextManager[None]:
    """Build a model for the weights of `source`, which bound its size; None bounds nothing.

    Raises:
        ConfigError, CheckpointError: as `read_tensors`; the model has far more parameters than the file.
    """
    if source is None:
        return nullcontext()
    path = _local(source)
    from safetensors import SafetensorError

    try:
        return not_far_larger(path, most_tensors(path))
    except OSError as error:
        raise _unreadable(path, error) from error
    except (SafetensorError, *_DAMAGED) as error:
        raise _damaged(path, error) from error


def load_torch(path: Path) -> Any:
    """The content of a file by torch.save, on the CPU: tensors and plain containers, or a CheckpointError."""
    try:
        with naming_memory(path):
            require_honest_zip(path, stored=True)
            if zipfile.is_zipfile(path):  # mapped first, so that no byte is read for what the file only claims
                require_honest_tensors(torch.load(path, map_location="cpu", weights_only=True, mmap=True), path)
            content = torch.load(path, map_location="cpu", weights_only=True)
        require_honest_tensors(content, path)
        return content
    except VitexpError:
        raise
    except OSError as error:
        raise _unreadable(path, error) from error
    except _DAMAGED as error:
        if "Unsupported global" in str(error) or "weights_only" in str(error).lower():
            raise CheckpointError(
                f"{path} is refused: it is damaged, or holds more than tensors and plain containers, and reading that "
                "could run code; save its state_dict alone, best as .safetensors"
            ) from error
        raise _damaged(path, error) from error


def unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what a training script saved, its names freed of wrapping modules.

    `state_dict` or `model` may hold it; a Lightning file keeps the network under `model.`, the rest is dropped.

    Raises:
        CheckpointError: there is no state dict.
    """
    lightning = isinstance(content, dict) and "pytorch-lightning_version" in content
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        found = ", ".join(map(str, list(content)[:8])) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(
            f"{path} holds no state dict ({found}); expected tensors by name, alone or under 'state_dict' or 'model'"
        )
    tensors = {_INNER_WRAPPERS.sub("", str(name)): tensor for name, tensor in content.items()}
    if lightning:
        tensors = {name: tensor for name, tensor in tensors.items() if name.startswith("model.")} or tensors
    while prefix := next((p for p in _WRAPPERS if all(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _local(source: str | Path) -> Path:
    text = str(source)
    if text.startswith("hf:"):
        return _fetch(text.removeprefix("hf:"))
    if "://" in text:
        raise ConfigError(
            f"checkpoint={text} is an address, and only local files and hf:<owner>/<name> are read; download it "
            "yourself and give the path"
        )
    path = Path(source).expanduser()
    if path.suffix not in SUFFIXES:
        raise ConfigError(
            f"checkpoint={text} is of a kind that is not read; use a file that ends in {', '.join(SUFFIXES)}, "
            "or hf:<owner>/<name>"
        )
    if not path.is_file():
        raise CheckpointError(f"checkpoint={text} does not exist or is not a file; give the path of a weights file")
    return path


def _fetch(repository: str) -> Path:
    """The weights file of a repository on the Hugging Face hub, from its cache where it is there already."""
    require_extra("hub", "huggingface_hub", asked=f"checkpoint=hf:{repository}")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HTTPError

    name, _, revision = repository.partition("@")
    try:
        return Path(hf_hub_download(name, _HUB_FILE, revision=revision or None))
    except (OSError, ValueError, HTTPError, EntryNotFoundError) as error:
        reason = first_line(error)
        raise CheckpointError(
            f"checkpoint=hf:{repository} could not be had ({reason}); check the name and the network, or download its "
            f"{_HUB_FILE} elsewhere and give checkpoint=PATH"
        ) from error


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with naming_memory(path), safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
            metadata = dict(file.metadata() or {})
    except OSError as error:
        raise _unreadable(path, error) from error
    except VitexpError:
        raise
    except (SafetensorError, *_DAMAGED) as error:
        raise _damaged(path, error) from error
    if not tensors:
        raise CheckpointError(f"{path} holds no tensor; give a file of weights")
    return unwrap(tensors, path), metadata


def _read_npz(path: Path) -> dict[str, Tensor]:
    import zlib

    import numpy as np

    try:
        require_honest_zip(path, stored=False)
        with naming_memory(path), path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            require_honest_arrays(file.zip, path)
            return {name: _from_numpy(file[name]) for name in file.files}
    except VitexpError:
        raise
    except OSError as error:
        raise _unreadable(path, error) from error
    except (zlib.error, *_DAMAGED) as error:
        raise _damaged(path, error) from error


def _from_numpy(array: Any) -> Tensor:
    """An array as a tensor; bfloat16, which NumPy stores as two raw bytes, becomes float32."""
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:
        return torch.from_numpy(array.view("int16").copy()).view(torch.bfloat16).float()
    return torch.from_numpy(array)


def _damaged(path: Path, error: BaseException) -> CheckpointError:
    reason = first_line(error)[:120]
    return CheckpointError(f"{path} is damaged or not a {path.suffix} file ({reason}); copy it again from its source")


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(f"{path} cannot be read ({error.strerror or error}); check the file and its permission")
