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
from typing import Annotated, Any, TypedDict

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from vitexp.checkpoint.read import load_torch
from vitexp.errors import CheckpointError, ResourceError, first_line
from vitexp.files.folder import Folder
from vitexp.files.record import Chars, Count, Name, Option, parse, read_record

SCHEMA = 2
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
DATA = "data.pt"  # the inventory of the data that the checkpoints were trained on
_MANIFEST = "manifest.json"
_ADVICE = "copy the run again"


class Entry(TypedDict):
    """A file in the manifest."""

    name: Name
    size: Count
    torch: Option
    step: Count
    epoch: Count
    batch: Count


class Manifest(TypedDict):
    """manifest.json: SHA-256 -> the file that has it."""

    schema: Count
    files: dict[Annotated[str, Chars(64)], Entry]


class _Header(TypedDict):
    """The part that a manifest of any version has."""

    schema: Count


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
        folder = _folder(path.parent)
        try:
            _require_room(path)
            with folder.writing(path.name) as part:
                torch.save(checkpoint, part)
                _enter(folder, path.name, part.name, checkpoint)
                if path.name == LAST and folder.has(LAST):
                    folder.rename(LAST, PREVIOUS)
            folder.sync()
        except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
            if isinstance(error, RuntimeError) and "write" not in str(error) and "enforce fail" not in str(error):
                raise
            raise _resource_error(path, error) from error

    def load_checkpoint(self, path: Any, map_location: Any | None = None, weights_only: bool | None = None) -> Any:
        """Read a checkpoint whose hash the manifest confirms."""
        path = Path(path)
        folder = _folder(path.parent)
        if sha256(folder, path.name) not in manifest(folder):
            raise CheckpointError(f"checkpoint {path} is damaged (its SHA-256 is not in {_MANIFEST})")
        return load_torch(path)

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint file."""
        path = Path(path)
        _folder(path.parent).remove(path.name)


def position_of(folder: Path) -> Position:
    """The place at which the run with these checkpoints goes on, as `newest` finds it and with its errors.

    Left-overs of killed saves are removed: the caller holds the run.
    """
    _folder(folder).remove_parts()
    found = newest(folder)
    if found is None:
        return Position()
    file, entry = found
    return Position(entry["step"], entry["epoch"], entry["batch"], file)


def newest(place: Path) -> tuple[Path, Entry] | None:
    """The whole training checkpoint with the most steps and its manifest entry; None if the folder has none.

    Names and times of the files do not matter, only what their hashes say.

    Raises:
        CheckpointError: there are checkpoints, but all are damaged, or of another vitexp.
    """
    folder = _folder(place)
    if (schema := _schema(folder)) < SCHEMA:
        raise CheckpointError(
            f"{place} was written by an older vitexp (schema {schema}) and holds another training state;"
            " resume it with that version, or begin a new run with checkpoint= its weights"
        )
    entries = manifest(folder)
    found = [name for name in (LAST, PREVIOUS) if folder.has(name)]
    whole = [(place / name, entries[digest]) for name in found if (digest := sha256(folder, name)) in entries]
    if found and not whole:
        raise CheckpointError(
            f"every checkpoint in {place} is damaged ({', '.join(found)}); the run must be trained again"
        )
    return max(whole, key=lambda pair: pair[1]["step"], default=None)


def manifest(folder: Folder) -> dict[str, Entry]:
    """SHA-256 -> {step, epoch, batch, size, ...} of the files of a checkpoint folder."""
    if (schema := _schema(folder)) > SCHEMA:
        raise CheckpointError(f"{folder.path} was written by a newer vitexp (schema {schema}); update vitexp")
    try:
        return read_record(folder, _MANIFEST, Manifest, advice=_ADVICE)["files"]
    except FileNotFoundError:
        return {}


def _folder(place: Path) -> Folder:
    """The checkpoint folder of a run, which is no link."""
    return Folder(place.parent, place.name)


def _schema(folder: Folder) -> int:
    """The version of the manifest; ours where there is none yet."""
    try:
        return read_record(folder, _MANIFEST, _Header, advice=_ADVICE)["schema"]
    except FileNotFoundError:
        return SCHEMA


def sha256(folder: Folder, name: str) -> str:
    """Hex digest of a file's content."""
    with folder.reading(name) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _enter(folder: Folder, name: str, part: str, checkpoint: dict[str, Any]) -> None:
    """Add the new file to the manifest, before it gets its name; entries of files long gone are dropped."""
    entries = manifest(folder)
    with folder.reading(part) as file:
        os.fsync(file.fileno())
        size, digest = os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()
    position = {"step": 0, "epoch": 0, "batch": 0, **checkpoint.get("vitexp", {})}
    entries.pop(digest, None)
    new = parse(Entry, {"name": name, "size": size, "torch": torch.__version__, **position}, source=name)
    recent = [*entries.items(), (digest, new)]
    kept = dict(recent[-12:])
    rare = [item for name in (BEST, DATA) for item in [one for one in recent if one[1]["name"] == name][-2:]]
    folder.write_json(_MANIFEST, {"schema": SCHEMA, "files": {**dict(rare), **kept}})


def _require_room(path: Path) -> None:
    if not path.exists():
        return
    needed, free = int(1.2 * path.stat().st_size), shutil.disk_usage(path.parent).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{needed} bytes needed, {free} free")


def _resource_error(path: Path, error: BaseException) -> ResourceError:
    if not path.parent.is_dir():
        return ResourceError(f"cannot save {path}: its folder is gone; `vitexp resume` goes on from what is left")
    free = shutil.disk_usage(path.parent).free / 2**20
    reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
    return ResourceError(
        f"cannot save {path}: {reason} ({free:.0f} MiB free there); free space or fix the permission,"
        " then `vitexp resume` continues from the checkpoint before"
    )
