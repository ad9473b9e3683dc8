"""CIFAR: the binary records, the image folders, what is refused, and the real sets where they are."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitexp.data import cifar
from vitexp.data.base import ImageData
from vitexp.data.cifar import read_records
from vitexp.data.file.fetch import data_root as folder_of_sets
from vitexp.errors import ConfigError, DataError

Make = Callable[..., ImageData]


def write_cifar100(root: Path, train: int = 40, test: int = 20) -> Path:
    folder = root / "cifar-100-binary"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, count in (("train", train), ("test", test)):
        records = random.integers(0, 256, (count, 3074), dtype=np.uint8)
        records[:, 0], records[:, 1] = np.arange(count) % 2, np.arange(count) % 4
        records.tofile(folder / f"{name}.bin")
    (folder / "fine_label_names.txt").write_text("ant\nbee\ncat\ndog\n")
    (folder / "coarse_label_names.txt").write_text("insect\nmammal\n")
    return root


def small(root: Path, *overrides: str) -> tuple[str, ...]:
    return ("data=cifar100", f"data.root={root}", "data.num_classes=4", "data.batch_size=4", *overrides)


def test_records_are_label_bytes_then_planes(tmp_path: Path) -> None:
    image = np.arange(3072, dtype=np.int64).astype(np.uint8)
    np.concatenate([[3, 7], image]).astype(np.uint8).tofile(tmp_path / "one.bin")
    images, labels = read_records(tmp_path / "one.bin", labels=2)
    assert labels.tolist() == [[3, 7]]
    assert np.array_equal(images[0], image.reshape(3, 32, 32))


@pytest.mark.parametrize("content", [b"", b"x" * 3075, b"x" * 100], ids=["empty", "long", "short"])
def test_half_a_record_is_an_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "train.bin").write_bytes(content)
    with pytest.raises(DataError, match=r"train\.bin has .* bytes, no whole number of records"):
        read_records(tmp_path / "train.bin", labels=2)
    with pytest.raises(DataError, match="0 bytes"):
        read_records(tmp_path / "absent.bin", labels=2)


def test_fine_and_coarse_labels(tmp_path: Path, data_module: Make) -> None:
    root = write_cifar100(tmp_path)
    fine = data_module(*small(root))
    assert (fine.train_size, fine.val_size, fine.test_size) == (36, 4, 20)
    assert fine.class_names == ["ant", "bee", "cat", "dog"]
    assert fine.source("test").labels.tolist() == [i % 4 for i in range(20)]
    coarse = data_module(*small(root / "cifar-100-binary", "data.labels=coarse", "data.num_classes=2"))
    assert coarse.class_names == ["insect", "mammal"]
    assert coarse.source("test").labels.tolist() == [i % 2 for i in range(20)]
    with pytest.raises(ConfigError, match=r"data\.labels=coarse"):
        data_module(*small(root, "data.labels=rough"))
    with pytest.raises(DataError, match=r"data\.num_classes=4, but the data has 2 classes"):
        data_module(*small(root, "data.labels=coarse")).setup("fit")


@pytest.mark.parametrize(("labels", "count"), [("fine", 100), ("coarse", 20)])
def test_the_number_of_classes_follows_the_labels(labels: str, count: int, data_module: Make) -> None:
    assert data_module("data=cifar100", f"data.labels={labels}").num_classes == count


def test_a_label_out_of_range_is_found_at_once(tmp_path: Path, data_module: Make) -> None:
    root = write_cifar100(tmp_path)
    with (root / "cifar-100-binary/train.bin").open("r+b") as file:
        file.seek(3074 * 5 + 1)
        file.write(b"\x04")
    with pytest.raises(DataError, match="sample 5 has label 4, allowed is 0 to 3"):
        data_module(*small(root)).setup("fit")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_absent_and_offline_it_says_where_to_put_it(
    name: str, tmp_path: Path, data_module: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    folder = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}[name]
    with pytest.raises(DataError) as caught:
        data_module(f"data={name}", f"data.root={tmp_path}").prepare_data()
    for said in (f"{tmp_path / folder} is absent", "https://www.cs.toronto.edu/~kriz/", "data.root=FOLDER"):
        assert said in str(caught.value)
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_cifar10_in_both_forms(tmp_path: Path, data_module: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "fetch", lambda *_, **__: pytest.fail("the set is there"))
    random = np.random.default_rng(0)
    names = [f"class{i}" for i in range(10)]
    files = [f"data_batch_{i}.bin" for i in range(1, 6)]
    for number, file in enumerate([*files, "test_batch.bin"]):
        records = random.integers(0, 256, (20, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(20) % 10
        (tmp_path / "binary/cifar-10-batches-bin").mkdir(parents=True, exist_ok=True)
        records.tofile(tmp_path / "binary/cifar-10-batches-bin" / file)
        for index, record in enumerate(records):
            split = "test" if number == 5 else "train"
            folder = tmp_path / "images/cifar10-images" / split / names[record[0]]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(record[1:].reshape(3, 32, 32).transpose(1, 2, 0)).save(folder / f"{number}{index:02d}.png")
    (tmp_path / "binary/cifar-10-batches-bin/batches.meta.txt").write_text("\n".join(names) + "\n\n")
    binary, images = (data_module("data=cifar10", f"data.root={tmp_path / kind}") for kind in ("binary", "images"))
    for module in (binary, images):
        module.prepare_data()
        assert module.class_names == names
        assert (module.train_size, module.val_size, module.test_size) == (90, 10, 20)
    stored = [module.source("test").images for module in (binary, images)]  # type: ignore[union-attr]
    by_label = binary.source("test").labels.argsort(stable=True)
    assert torch.equal(stored[0][by_label], stored[1])


def test_where_sets_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VITEXP_DATA", str(tmp_path))
    assert folder_of_sets(None) == tmp_path
    assert folder_of_sets("/elsewhere") == Path("/elsewhere")
    monkeypatch.delenv("VITEXP_DATA")
    assert folder_of_sets(None) == Path.home() / ".cache/vitexp"


def test_the_real_cifar100(data_root: Callable[[str], Path], data_module: Make) -> None:
    module = data_module("data=cifar100", f"data.root={data_root('cifar-100-binary')}")
    train, val = module.source("train"), module.source("val")
    assert (len(train), len(val), module.test_size) == (45_000, 5_000, 10_000)
    assert torch.bincount(train.labels).unique().tolist() == [450]
    assert torch.bincount(val.labels).unique().tolist() == [50]
    images = torch.cat([train.images, val.images])  # type: ignore[union-attr]
    channels = [torch.std_mean(images[:, channel].float() / 255) for channel in range(3)]
    assert [float(mean) for _, mean in channels] == pytest.approx([0.5071, 0.4865, 0.4409], abs=1e-4)
    assert [float(std) for std, _ in channels] == pytest.approx(module.std, abs=1e-4)
    assert module.class_names[:2] == ["apple", "aquarium_fish"]


def test_the_real_cifar10_test_images(data_root: Callable[[str], Path], data_module: Make) -> None:
    module = data_module("data=cifar10", f"data.root={data_root('cifar10-images')}")
    source = module.source("test")
    assert torch.bincount(source.labels).tolist() == [1000] * 10
    means = source.images.float().mean((0, 2, 3)) / 255  # type: ignore[union-attr]
    assert means.tolist() == pytest.approx(module.mean, abs=5e-3)
    assert module.class_names[0] == "airplane"
