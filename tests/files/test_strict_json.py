"""JSON of others: one error of ours that names the file, whatever is wrong with it."""

import os
from pathlib import Path

import pytest

from vitexp.checkpoint.read import read_classes
from vitexp.checkpoint.safe_io import manifest
from vitexp.data.coco_json import read_json as read_annotations
from vitexp.errors import CheckpointError, DataError
from vitexp.files.folder import Folder
from vitexp.files.strict_json import parse_json, read_json
from vitexp.run.folder import open_run

DEEP = "[" * 100_000 + "]" * 100_000
BAD = {"cut off": '{"a": ', "nested deeply": DEEP, "a list": "[1]", "a number": "3", "nothing": ""}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_what_is_no_object_is_one_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^here .*; fetch it again$"):
        parse_json(text, dict, source="here", error=DataError, advice="fetch it again")
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"run\.json .*; copy the run again"):
        open_run(tmp_path)
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"manifest\.json .*; copy the run again"):
        manifest(Folder(tmp_path))


def test_the_disk_has_a_file_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: [steps.append("fsync"), fsync(descriptor)])
    monkeypatch.setattr(os, "replace", lambda *names, **folders: [steps.append("replace"), replace(*names, **folders)])
    Folder(tmp_path).write_text("a.txt", "ü")
    assert steps[:2] == ["fsync", "replace"]
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "ü"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_what_is_whole_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [1, "ü"]}', encoding="utf-8")
    assert read_json(tmp_path / "a.json", dict, error=DataError, advice="") == {"a": [1, "ü"]}
    assert parse_json("[1]", object, source="", error=DataError, advice="") == [1]


def test_bytes_and_sizes_that_no_text_has(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(DataError, match="cannot be read"):
        read_json(tmp_path / "a.json", dict, error=DataError, advice="fetch it again")
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(2**33)  # sparse: takes no room
    with pytest.raises(DataError, match="larger than 4,294,967,296 bytes; fetch it again"):
        read_annotations(tmp_path / "huge.json")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "absent.json", dict, error=DataError, advice="")


def test_annotations_nested_deeply_are_an_error_of_the_data(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"images": ' + DEEP)
    with pytest.raises(DataError, match="cannot be read as JSON"):
        read_annotations(tmp_path / "a.json")


def test_a_weights_file_may_say_anything_of_itself(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"classes": DEEP})
    with pytest.raises(CheckpointError, match=r"classes of .* cannot be read as JSON"):
        read_classes(tmp_path / "a.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"classes": '["cat"]'})
    assert read_classes(tmp_path / "a.safetensors") == ["cat"]
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    assert read_classes(tmp_path / "a.safetensors") is None
