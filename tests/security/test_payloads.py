"""Files that would run code when they are unpickled run none, whoever hands them in and wherever the payload sits."""

import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vitexp.checkpoint.read import load_torch, read_tensors
from vitexp.checkpoint.safe_io import LAST, SafeCheckpointIO, sha256
from vitexp.cli import main
from vitexp.errors import CheckpointError, ConfigError
from vitexp.files.folder import Folder

GOOD = {"head.weight": torch.zeros(2, 2)}


class Payload:
    """Unpickled, it calls `function` with `arguments`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def contents(marker: Path) -> dict[str, Any]:
    """Where a payload can hide in what a training script saves."""
    shell = Payload(os.system, f"touch {marker}")
    return {
        "alone": shell,
        "beside the weights": {**GOOD, "x": shell},
        "in the hyper-parameters": {"state_dict": GOOD, "hyper_parameters": {"cfg": shell}},
        "in the optimizer": {"state_dict": GOOD, "optimizer_states": [{"state": {0: shell}}]},
        "in the callbacks": {"state_dict": GOOD, "callbacks": {"x": [shell]}},
        "as a key": {"state_dict": GOOD, 1: {"a": (shell,)}},
        "by exec": {"x": Payload(exec, f"open({str(marker)!r}, 'w')")},
        "by eval": {"x": Payload(eval, f"open({str(marker)!r}, 'w')")},
        "by open": {"x": Payload(open, str(marker), "w")},
        "by import": {"x": Payload(__import__, "antigravity")},
    }


PLACES = list(contents(Path("marker")))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("place", PLACES)
def test_a_payload_never_runs(place: str, zipped: bool, tmp_path: Path) -> None:
    marker, file = tmp_path / "marker", tmp_path / "evil.pth"
    torch.save(contents(marker)[place], file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError):
        load_torch(file)
    with pytest.raises(CheckpointError):
        read_tensors(file)
    assert not marker.exists()


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".bin", ".npz", ".safetensors"])
def test_a_bare_pickle_never_runs(suffix: str, tmp_path: Path) -> None:
    marker, file = tmp_path / "marker", tmp_path / f"evil{suffix}"
    file.write_bytes(pickle.dumps(Payload(os.system, f"touch {marker}"), protocol=2))
    with pytest.raises(CheckpointError):
        read_tensors(file)
    assert not marker.exists()


def test_arrays_of_objects_and_tar_files_are_refused(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    np.savez(tmp_path / "evil.npz", x=np.array([Payload(os.system, f"touch {marker}")], dtype=object))
    with tarfile.open(tmp_path / "evil.pt", "w") as tar:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            data = pickle.dumps(Payload(os.system, f"touch {marker}"), protocol=2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    for name in ("evil.npz", "evil.pt"):
        with pytest.raises(CheckpointError):
            read_tensors(tmp_path / name)
    assert not marker.exists()


def test_a_manifest_that_vouches_for_a_payload_does_not_help_it(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    torch.save({"x": Payload(os.system, f"touch {marker}")}, tmp_path / LAST)
    folder = Folder(tmp_path)
    entry = {"name": LAST, "size": 1, "torch": "2", "step": 1, "epoch": 0, "batch": 0}
    folder.write_json("manifest.json", {"schema": 2, "files": {sha256(folder, LAST): entry}})
    with pytest.raises(CheckpointError):
        SafeCheckpointIO().load_checkpoint(tmp_path / LAST)
    assert not marker.exists()


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9/a.ckpt", "https://x/a.ckpt", "file:///etc/passwd", "s3://b/a.pt"]
)
def test_addresses_are_not_opened(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    with pytest.raises(ConfigError, match="is an address"):
        read_tensors(address)
    monkeypatch.chdir(tmp_path)
    assert main(["data=fake", "size=8", "logger=none", f"checkpoint={address}"]) == 2
    assert "is an address" in capsys.readouterr().err
