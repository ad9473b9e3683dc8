"""Reading: every format, every wrapper, and no code from a file."""

import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub.errors import HTTPError
from safetensors.torch import save_file

from vitexp.checkpoint.read import load_torch, read_classes, read_metadata, read_tensors
from vitexp.errors import CheckpointError, ConfigError, ResourceError

WEIGHTS = {"head.weight": torch.arange(6.0).reshape(2, 3), "head.bias": torch.tensor([1.0, 2.0])}


def same(tensors):
    return tensors.keys() == WEIGHTS.keys() and all(torch.equal(tensors[k], WEIGHTS[k]) for k in WEIGHTS)


def test_safetensors_with_metadata(tmp_path):
    save_file(WEIGHTS, tmp_path / "a.safetensors", metadata={"classes": "[]"})
    tensors, metadata = read_tensors(tmp_path / "a.safetensors")
    assert same(tensors)
    assert metadata == {"classes": "[]"}


def test_metadata_and_classes_without_the_tensors(tmp_path):
    save_file(WEIGHTS, tmp_path / "a.safetensors", metadata={"classes": '["cat", "dog"]', "grid": "2x2"})
    save_file(WEIGHTS, tmp_path / "b.safetensors")
    torch.save(WEIGHTS, tmp_path / "c.pth")
    assert read_metadata(tmp_path / "a.safetensors") == {"classes": '["cat", "dog"]', "grid": "2x2"}
    assert read_classes(tmp_path / "a.safetensors") == ["cat", "dog"]
    for other in ("b.safetensors", "c.pth", "absent.safetensors"):
        assert read_metadata(tmp_path / other) == {}
        assert read_classes(tmp_path / other) is None
    save_file(WEIGHTS, tmp_path / "a.safetensors", metadata={"classes": "{}"})
    with pytest.raises(CheckpointError, match=r"classes of .*a\.safetensors"):
        read_classes(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"b\.safetensors is damaged"):
        read_metadata(tmp_path / "b.safetensors")


def test_npz(tmp_path):
    np.savez(tmp_path / "a.npz", **{name: tensor.numpy() for name, tensor in WEIGHTS.items()})
    assert same(read_tensors(tmp_path / "a.npz")[0])


def test_npz_bfloat16(tmp_path):
    raw = torch.tensor([1.5, -2.0]).to(torch.bfloat16).view(torch.int16).numpy().view("V2")
    np.savez(tmp_path / "a.npz", x=raw)
    assert torch.equal(read_tensors(tmp_path / "a.npz")[0]["x"], torch.tensor([1.5, -2.0]))


def prefixed(prefix):
    return {prefix + name: tensor for name, tensor in WEIGHTS.items()}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".bin"])
@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"state_dict": WEIGHTS, "epoch": 3},
        {"model": WEIGHTS, "optimizer": {}},
        prefixed("module."),
        {"state_dict": prefixed("module.model.")},
        {"model": prefixed("_orig_mod.")},
        {"head._orig_mod.weight": WEIGHTS["head.weight"], "head.bias": WEIGHTS["head.bias"]},
        {
            "state_dict": {**prefixed("model._orig_mod."), "ema.head.bias": torch.zeros(2)},
            "pytorch-lightning_version": "2.6.6",
        },
    ],
    ids=["plain", "state_dict", "model", "module", "nested", "compiled", "inner", "lightning"],
)
def test_torch_files_and_wrappers(tmp_path, content, suffix):
    torch.save(content, tmp_path / f"a{suffix}")
    assert same(read_tensors(tmp_path / f"a{suffix}")[0])


def test_prefix_of_some_tensors_stays(tmp_path):
    torch.save({"model.a": torch.ones(1), "head": torch.ones(1)}, tmp_path / "a.pt")
    assert read_tensors(tmp_path / "a.pt")[0].keys() == {"model.a", "head"}


def test_legacy_format(tmp_path):
    torch.save(WEIGHTS, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert same(read_tensors(tmp_path / "a.pth")[0])


class Payload:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("force", [False, True])
def test_code_in_a_file_does_not_run(tmp_path, monkeypatch, legacy, force):
    if force:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker = tmp_path / "ran"
    content = {"state_dict": WEIGHTS, "hyper_parameters": Payload(marker)}
    torch.save(content, tmp_path / "a.ckpt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match="could run code"):
        read_tensors(tmp_path / "a.ckpt")
    assert not marker.exists()


def test_object_arrays_are_refused(tmp_path):
    marker = tmp_path / "ran"
    np.savez(tmp_path / "a.npz", x=np.array([Payload(marker)], dtype=object), allow_pickle=True)
    with pytest.raises(CheckpointError, match=r"a\.npz: x\.npy is damaged or holds objects"):
        read_tensors(tmp_path / "a.npz")
    assert not marker.exists()


def write(path):
    if path.suffix == ".safetensors":
        save_file(WEIGHTS, path)
    elif path.suffix == ".npz":
        np.savez_compressed(path, **{name: tensor.numpy() for name, tensor in WEIGHTS.items()})
    else:
        torch.save(WEIGHTS, path)


DAMAGE = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "short": lambda data: data[:10],
    "html": lambda data: b"<html>not found</html>" * 20,
    "text": lambda data: b"101\nversion https://git-lfs.github.com/spec/v1\n",
    "zeros": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth", ".ckpt"])
def test_damaged_files_are_named(tmp_path, suffix, damage):
    path = tmp_path / f"weights{suffix}"
    write(path)
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(CheckpointError, match=f"weights\\{suffix}"):
        read_tensors(path)


def test_zip_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"a\.pth"):
        read_tensors(tmp_path / "a.pth")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 1, "loss": 0.5}, {}])
def test_no_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        read_tensors(tmp_path / "a.pth")


@pytest.mark.parametrize("source", ["http://127.0.0.1:9/a.pth", "https://example.org/a.safetensors", "file:///a.pt"])
def test_addresses_are_refused(source):
    with pytest.raises(ConfigError, match="download it yourself and give the path"):
        read_tensors(source)


def test_other_sources(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        read_tensors(tmp_path / "absent.pth")
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(CheckpointError, match="not a file"):
        read_tensors(tmp_path / "folder.pth")
    with pytest.raises(ConfigError, match=r"ends in \.safetensors"):
        read_tensors(tmp_path / "a.onnx")


def test_hub_without_network(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"hf:timm/absent could not be had .* checkpoint=PATH"):
        read_tensors("hf:timm/absent")


def test_hub_that_breaks_off(monkeypatch):
    def download(name, file, *, revision):
        raise HTTPError("server disconnected")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(CheckpointError, match=r"hf:timm/vit could not be had \(server disconnected\)"):
        read_tensors("hf:timm/vit")


def test_hub_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"checkpoint=hf:timm/vit needs .* pip install 'vitexp\[hub\]'"):
        read_tensors("hf:timm/vit")


def test_hub_file_is_read(tmp_path, monkeypatch):
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    asked = []

    def download(name, file, *, revision):
        asked.append((name, file, revision))
        return str(tmp_path / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert same(read_tensors("hf:timm/vit@v1")[0])
    assert asked == [("timm/vit", "model.safetensors", "v1")]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce fail] can't allocate memory: you tried 9")])
def test_memory_that_gives_out_is_a_matter_of_the_file(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starved(*args: object, **kwargs: object) -> None:
        raise error

    file = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(2)}, file)
    monkeypatch.setattr(torch, "load", starved)
    with pytest.raises(ResourceError, match=r"out of memory while reading .*a\.pth of [\d,]+ bytes"):
        load_torch(file)
