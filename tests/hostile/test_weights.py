"""Weights files made to harm: each is refused in a line, before memory is taken for what it only claims."""

import io
import json
import os
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import vitexp
from tests.hostile.folders import some
from tests.hostile.judge import judge
from vitexp.checkpoint.read import read_tensors
from vitexp.errors import CheckpointError

MODEL = ("model=vit_nano", "data=digits")
RED = "\x1b[31mowned\x07"


def weights() -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in vitexp.build_model(vitexp.compose(MODEL)).state_dict().items()}


def torch_file(change: Callable[[dict[str, Any]], object], *, zipped: bool = True) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        content, path = weights(), folder / "w.pth"
        changed = change(content)
        torch.save(content if changed is None else changed, path, _use_new_zipfile_serialization=zipped)
        return path

    return write


def replaced(tensor: Callable[[], object]) -> Callable[[Path], Path]:
    def change(content: dict[str, Any]) -> None:
        with warnings.catch_warnings(action="ignore"):  # torch's, of kinds of tensors that are new or going
            content["head.weight"] = tensor()

    return torch_file(change)


def deflated(folder: Path) -> Path:
    """A torch file whose tensor of zeros unpacks to 256 MiB."""
    plain, path = folder / "plain.pth", folder / "w.pth"
    torch.save(weights() | {"head.weight": torch.zeros(2**26)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    plain.unlink()
    return path


def npz_bomb(folder: Path) -> Path:
    path = folder / "w.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("head.weight.npy", npy_header((2**26,)) + bytes(2**28))
    return path


def npy_header(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def npz(content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "w.npz", "w") as archive:
            archive.writestr("head.weight.npy", content)
        return folder / "w.npz"

    return write


def encrypted(folder: Path) -> Path:
    path = npz(npy_header((2, 2)) + bytes(16))(folder)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    content[6] |= 1
    path.write_bytes(content)
    return path


def raw(content: bytes, name: str = "w.safetensors") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def header(content: object, *, length: int | None = None, data: bytes = bytes(64)) -> Callable[[Path], Path]:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return raw(struct.pack("<Q", len(text) if length is None else length) + text + data)


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def said(metadata: dict[str, str], **more: Tensor) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        save_file(weights() | more, folder / "w.safetensors", metadata=metadata)
        return folder / "w.safetensors"

    return write


def sparse() -> Tensor:
    return torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.long), torch.ones(1), (10**6, 10**6))


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "w.safetensors")
    return folder / "w.safetensors"


def link(target: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "w.pth").symlink_to(target)
        return folder / "w.pth"

    return write


def directory(folder: Path) -> Path:
    (folder / "w.npz").mkdir()
    return folder / "w.npz"


FILES: dict[str, Callable[[Path], Path]] = {
    "npz that unpacks to 256 MiB": npz_bomb,
    "npz whose header claims terabytes": npz(npy_header((10**12,)) + bytes(64)),
    "npz whose header claims less than it has": npz(npy_header((2,)) + bytes(4096)),
    "npz of a negative shape": npz(npy_header((-1, 4)) + bytes(64)),
    "npz of objects": npz(b"\x93NUMPY\x01\x00\x46\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }     \n"),
    "npz without an array": npz(b"no array"),
    "npz that is encrypted": encrypted,
    "npz that is a folder": directory,
    "torch file that is deflated": deflated,
    "tensor of stride 0": replaced(lambda: torch.zeros(1).expand(10**9)),
    "many views of one tensor": torch_file(lambda c: [c.update({f"{i}": c["head.weight"]}) for i in range(500)] and c),
    "sparse tensor": replaced(sparse),
    "compressed sparse rows": replaced(lambda: torch.eye(4).to_sparse_csr()),
    "quantised tensor": replaced(lambda: torch.quantize_per_tensor(torch.zeros(10, 64), 0.1, 0, torch.qint8)),
    "tensor without data": replaced(lambda: torch.empty(10**9, device="meta")),
    "complex tensor": replaced(lambda: torch.zeros(10, 64, dtype=torch.complex64)),
    "scalar": replaced(lambda: torch.tensor(1.0)),
    "text in place of a tensor": replaced(lambda: "head"),
    "tensor with a rude name": torch_file(lambda content: content.update({RED: torch.zeros(1)})),
    "numbers for names": torch_file(lambda content: dict(enumerate(content.values()))),
    "list of tensors": torch_file(lambda content: list(content.values())),
    "nothing": torch_file(lambda content: {}),
    "legacy file of stride 0": torch_file(
        lambda content: content.update({"head.weight": torch.zeros(1).expand(10**8)}), zipped=False
    ),
    "half a file": lambda folder: raw(torch_file(lambda c: c)(folder).read_bytes()[:9000], "w.pth")(folder),
    "page of a website": raw(b"<!DOCTYPE html><html>" + b"x" * 4000, "w.pth"),
    "empty file": raw(b"", "w.pth"),
    "header longer than the file": header({}, length=10**15),
    "header that is no JSON": header(b"{" * 4000),
    "header nested deeply": header(b'{"a":' * 20000 + b"1" + b"}" * 20000),
    "tensor beyond the file": header({"head.weight": entry([10**9], 0, 4 * 10**9)}),
    "tensors on top of each other": header({"a": entry([16], 0, 64), "b": entry([16], 0, 64)}),
    "negative offsets": header({"a": entry([16], -64, 0)}),
    "shape of the wrong size": header({"a": entry([17], 0, 64)}),
    "type that does not exist": header({"a": entry([16], 0, 64, "F33")}),
    "rude name in the header": header({RED: entry([16], 0, 64)}),
    "classes that are no list": said({"classes": "7"}),
    "classes that are no JSON": said({"classes": "[" * 5000}),
    "classes that are no names": said({"classes": json.dumps([1, None, {}])}),
    "grid that is none": said({"grid": RED}),
    "grid of a million": said({"grid": "1000000x1000000"}),
    "rude metadata": said({RED: RED, "classes": json.dumps([RED] * 10)}),
    "pipe": fifo,
    "device": link("/dev/zero"),
    "link to itself": link("w.pth"),
}


@pytest.mark.parametrize("kind", some(FILES, 8))
def test_a_harmful_file_is_refused_or_read_as_it_is(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    file = FILES[kind](folder)
    judge(["evaluate", *MODEL, f"checkpoint={file.name}", "quiet=true"], folder=folder, canaries=["owned\x07"])


@pytest.mark.parametrize("key", ["model.depth=4000", "model.dim=1000000", "model.mlp_ratio=1000000"])
def test_a_model_far_larger_than_its_weights_is_not_built(key: str, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    save_file(weights(), folder / "w.safetensors")
    outcome = judge(["evaluate", *MODEL, key, "checkpoint=w.safetensors"], folder=folder)
    assert outcome.code == 4
    assert "far more parameters than" in outcome.err


@pytest.mark.parametrize("write", [npz_bomb, deflated])
def test_a_bomb_is_refused_by_its_directory(write: Callable[[Path], Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"unpacks to|is compressed"):
        read_tensors(write(tmp_path))
