"""A checkpoint is whole or not there: damage is seen, the generation before is kept, a failed save changes nothing."""

import os
from pathlib import Path

import pytest
import torch

from vitexp.checkpoint import safe_io
from vitexp.checkpoint.safe_io import BEST, LAST, PREVIOUS, SafeCheckpointIO, manifest, newest
from vitexp.errors import CheckpointError, ResourceError
from vitexp.files.folder import Folder


def save(folder: Path, step: int, name: str = LAST) -> None:
    content = {
        "state_dict": {"w": torch.full((100,), float(step))},
        "vitexp": {"step": step, "epoch": 0, "batch": step},
    }
    SafeCheckpointIO().save_checkpoint(content, folder / name)


def value(path: Path) -> float:
    return float(SafeCheckpointIO().load_checkpoint(path)["state_dict"]["w"][0])


def test_last_and_the_one_before_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert value(tmp_path / LAST) == 3
    assert value(tmp_path / PREVIOUS) == 2
    path, entry = newest(tmp_path)
    assert (path.name, entry["step"], entry["batch"]) == (LAST, 3, 3)


def test_a_flipped_bit_is_seen_and_the_generation_before_taken(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    data = bytearray((tmp_path / LAST).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / LAST).write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        SafeCheckpointIO().load_checkpoint(tmp_path / LAST)
    assert newest(tmp_path)[1]["step"] == 1


def test_newest_goes_by_step_not_by_time_or_name(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    (tmp_path / LAST).rename(tmp_path / "swap")
    (tmp_path / PREVIOUS).rename(tmp_path / LAST)
    (tmp_path / "swap").rename(tmp_path / PREVIOUS)
    os.utime(tmp_path / LAST)
    assert newest(tmp_path) == (tmp_path / PREVIOUS, newest(tmp_path)[1])
    assert newest(tmp_path)[1]["step"] == 2


def test_all_damaged_is_an_error_and_none_is_none(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    save(tmp_path, 1)
    (tmp_path / LAST).write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match="damaged"):
        newest(tmp_path)


@pytest.mark.parametrize("stage", ["save", "fsync", "manifest", "replace"])
def test_a_save_that_dies_at_any_stage_leaves_the_old_one(tmp_path: Path, stage: str, monkeypatch) -> None:
    save(tmp_path, 1)

    class Killed(BaseException):
        pass

    def die(*arguments: object, **keywords: object) -> None:
        raise Killed

    target = {
        "save": (torch, "save"),
        "fsync": (os, "fsync"),
        "manifest": (Folder, "write_json"),
        "replace": (os, "replace"),
    }
    module, name = target[stage]
    with monkeypatch.context() as patch:
        patch.setattr(module, name, die)
        with pytest.raises(Killed):
            save(tmp_path, 2)
    path, entry = newest(tmp_path)
    assert entry["step"] == 1
    assert value(path) == 1
    assert not list(tmp_path.glob(".part-*"))
    save(tmp_path, 3)
    assert newest(tmp_path)[1]["step"] == 3


def test_a_full_disk_is_a_resource_error_that_keeps_the_old_file(tmp_path: Path, monkeypatch) -> None:
    save(tmp_path, 1)
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(safe_io.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ResourceError, match="free"):
        save(tmp_path, 2)
    assert newest(tmp_path)[1]["step"] == 1


def test_a_folder_that_is_gone_is_a_resource_error(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="its folder is gone"):
        SafeCheckpointIO().save_checkpoint({"a": 1}, tmp_path / "checkpoints" / LAST)


def test_what_is_saved_again_is_recent_again(tmp_path: Path) -> None:
    """The manifest knows the last twelve files; one of the same content counts from its last save on."""
    for step in (*range(1, 13), 1, 13):
        save(tmp_path, step)
    assert value(tmp_path / PREVIOUS) == 1
    assert len(manifest(Folder(tmp_path))) == 12


def test_room_for_the_file_and_a_fifth_is_enough(tmp_path: Path, monkeypatch) -> None:
    save(tmp_path, 1)
    room = int(1.2 * (tmp_path / LAST).stat().st_size)
    monkeypatch.setattr(safe_io.shutil, "disk_usage", lambda path: type("Usage", (), {"free": room}))
    save(tmp_path, 2)
    assert newest(tmp_path)[1]["step"] == 2
    room -= 1
    with pytest.raises(ResourceError, match="free"):
        save(tmp_path, 3)


def test_best_stays_readable_after_many_saves(tmp_path: Path) -> None:
    save(tmp_path, 1, BEST)
    for step in range(2, 30):
        save(tmp_path, step)
    assert value(tmp_path / BEST) == 1


@pytest.mark.parametrize(("schema", "said"), [(99, "newer vitexp"), (1, "older vitexp")])
def test_another_schema_is_refused(schema: int, said: str, tmp_path: Path) -> None:
    save(tmp_path, 1)
    folder = Folder(tmp_path)
    folder.write_json("manifest.json", {"schema": schema, "files": manifest(folder)})
    with pytest.raises(CheckpointError, match=said):
        newest(tmp_path)
