"""Checkpoints that are either whole or not there (reliability.md, design B).

A save writes a temporary file in the same directory, flushes it to the disk, enters its SHA-256 into `manifest.json`,
and only then renames it over `last.ckpt`, whose earlier content lives on as `previous.ckpt`. The manifest knows files
by their hash, not their name, so at every instant each file that stands there can be told whole or damaged.
Reading verifies the hash and never unpickles code.
"""

import errno
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from vitexp.checkpoint.read import load_torch
from vitexp.errors import CheckpointError, ResourceError, first_line
from vitexp.files import read_json, sync, whole, write_json

SCHEMA = 2
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
DATA = "data.pt"  # the inventory of the data that the checkpoints were trained on
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Position:
    """The place at which a run goes on: step, epoch and batch of a checkpoint, or the beginning where there is none."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    file: Path | None = None


class SafeCheckpointIO(CheckpointIO):
    """Lightning's checkpoint plugin: atomic, hashed, two generations of `last.ckpt`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write `checkpoint` at `path`; tensors and plain containers only.

        Raises:
            ResourceError: no room, or no permission; the files that were there are untouched.
        """
        path = Path(path)
        try:
            _require_room(path)
            with whole(path) as part:
                torch.save(checkpoint, part)
                sync(part)
                _enter(path, part, checkpoint)
                if path.name == LAST and path.exists():
                    os.replace(path, path.with_name(PREVIOUS))
            sync(path.parent)
        except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
            if isinstance(error, RuntimeError) and "write" not in str(error) and "enforce fail" not in str(error):
                raise
            raise _resource_error(path, error) from error

    def load_checkpoint(self, path: Any, map_location: Any | None = None, weights_only: bool | None = None) -> Any:
        """Read a checkpoint whose hash the manifest confirms."""
        path = Path(path)
        if sha256(path) not in manifest(path.parent):
            raise CheckpointError(f"checkpoint {path} is damaged (its SHA-256 is not in {_MANIFEST})")
        return load_torch(path)

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint file."""
        Path(path).unlink(missing_ok=True)


def position_of(folder: Path) -> Position:
    """The place at which the run with these checkpoints goes on, as `newest` finds it and with its errors."""
    found = newest(folder)
    if found is None:
        return Position()
    file, entry = found
    return Position(entry["step"], entry["epoch"], entry["batch"], file)


def newest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The whole training checkpoint with the most steps and its manifest entry; None if the folder has none.

    Left-overs of killed saves are removed. Names and times of the files do not matter, only what their hashes say.

    Raises:
        CheckpointError: there are checkpoints, but all are damaged, or of another vitexp.
    """
    for part in folder.glob(".*.part"):
        part.unlink()
    entries = manifest(folder)
    if entries and (schema := _read(folder).get("schema", 0)) < SCHEMA:
        raise CheckpointError(
            f"{folder} was written by an older vitexp (schema {schema}) and holds another training state;"
            " resume it with that version, or begin a new run with checkpoint= its weights"
        )
    found = [path for name in (LAST, PREVIOUS) if (path := folder / name).is_file()]
    whole = [(path, entries[digest]) for path in found if (digest := sha256(path)) in entries]
    if found and not whole:
        names = ", ".join(path.name for path in found)
        raise CheckpointError(f"every checkpoint in {folder} is damaged ({names}); the run must be trained again")
    return max(whole, key=lambda pair: pair[1]["step"], default=None)


def manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """SHA-256 -> {step, epoch, batch, size, ...} of the files of a checkpoint folder."""
    content = _read(folder)
    if not content:
        return {}
    if content.get("schema", 0) > SCHEMA:
        raise CheckpointError(f"{folder} was written by a newer vitexp (schema {content['schema']}); update vitexp")
    entries = content.get("files")
    if not isinstance(entries, dict):
        raise CheckpointError(f"{folder / _MANIFEST} lists no files; copy the run again")
    return entries


def _read(folder: Path) -> dict[str, Any]:
    """The manifest as it is; empty if there is none."""
    try:
        content: dict[str, Any] = read_json(
            folder / _MANIFEST, dict, error=CheckpointError, advice="copy the run again"
        )
    except FileNotFoundError:
        return {}
    return content


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _enter(path: Path, part: Path, checkpoint: dict[str, Any]) -> None:
    """Add the new file to the manifest, before it gets its name; entries of files long gone are dropped."""
    entries = manifest(path.parent)
    digest = sha256(part)
    position = checkpoint.get("vitexp", {})
    entries.pop(digest, None)
    entries[digest] = {"name": path.name, "size": part.stat().st_size, "torch": torch.__version__, **position}
    recent = list(entries.items())
    kept = dict(recent[-12:])
    rare = [item for name in (BEST, DATA) for item in [one for one in recent if one[1]["name"] == name][-2:]]
    write_json(path.parent / _MANIFEST, {"schema": SCHEMA, "files": {**dict(rare), **kept}})


def _require_room(path: Path) -> None:
    if not path.exists():
        return
    needed, free = int(1.2 * path.stat().st_size), shutil.disk_usage(path.parent).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{needed} bytes needed, {free} free")


def _resource_error(path: Path, error: BaseException) -> ResourceError:
    free = shutil.disk_usage(path.parent).free / 2**20
    reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
    return ResourceError(
        f"cannot save {path}: {reason} ({free:.0f} MiB free there); free space or fix the permission,"
        " then `vitexp resume` continues from the checkpoint before"
    )
