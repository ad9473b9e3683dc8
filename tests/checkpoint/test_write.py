"""A weights file is whole or not there, and a disk without room is told as that."""

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from vitexp.checkpoint import write
from vitexp.checkpoint.read import read_metadata
from vitexp.checkpoint.write import save_tensors
from vitexp.errors import ResourceError


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "weights.safetensors"
    save_tensors({"a": torch.ones(3)}, file, {"model": "tiny"})

    def half(tensors, part, metadata) -> None:
        Path(part).write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(write, "save_file", half)
    with pytest.raises(ResourceError, match=r"weights\.safetensors.*No space left.*free space"):
        save_tensors({"a": torch.zeros(3)}, file, {})
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert load_file(file)["a"].tolist() == [1.0, 1.0, 1.0]


def test_a_model_is_written_with_what_it_is(tmp_path: Path) -> None:
    model, file = torch.nn.Linear(2, 3), tmp_path / "weights.safetensors"
    write.save_weights(model, file, {"model": "tiny"})
    assert load_file(file).keys() == {"weight", "bias"}
    assert torch.equal(load_file(file)["weight"], model.weight)
    assert read_metadata(file) == {"model": "tiny"}


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="cannot write"):
        save_tensors({"a": torch.ones(3)}, tmp_path / "none" / "weights.safetensors", {})
