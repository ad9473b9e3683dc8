"""Batches depend on seed, epoch and place alone: not on workers, chunks, resumes or the device's path."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from vitexp.data import reader as readers
from vitexp.data.base import ImageData
from vitexp.data.reader import FileReader, MemoryReader
from vitexp.errors import ConfigError, DataError, ResourceError

Make = Callable[..., ImageData]
STRONG = ("augment=strong", "seed=3")


def collect(module: ImageData, epoch: int = 0) -> list[tuple[Tensor, Tensor]]:
    loader = module.train_dataloader()
    iterator = iter(loader)  # as Lightning does: before it sets the epoch
    loader.sampler.set_epoch(epoch)
    batches = list(iterator)
    for images, _ in batches:
        assert images.dtype == torch.float32
    return batches


def equal(some: list[tuple[Tensor, Tensor]], others: list[tuple[Tensor, Tensor]]) -> bool:
    return len(some) == len(others) and all(
        torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in zip(some, others, strict=True)
    )


@pytest.fixture
def folder(image_folder: Callable[..., Path]) -> Path:
    return image_folder(".", {"cat": 20, "dog": 12})


def paths(module: ImageData, split: str) -> list[str]:
    source = module.source(split)
    return [source.path(position) for position in range(len(source))]  # type: ignore[union-attr]


def folder_module(data_module: Make, root: Path, *overrides: str) -> ImageData:
    small = ("data=folder", f"data.root={root}", "data.image_size=16", "data.batch_size=8", "data.num_workers=0")
    return data_module(*small, *STRONG, *overrides)


def test_workers_change_nothing(data_module: Make, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitexp.data.loader.usable_cores", lambda: 2)
    alone, helped = folder_module(data_module, folder), folder_module(data_module, folder, "data.num_workers=2")
    loader = helped.train_dataloader()
    assert isinstance(loader.reader, FileReader)
    assert loader.reader.batches.num_workers == 2
    for epoch in (0, 1):  # the second epoch meets the same, persistent workers
        loader.sampler.set_epoch(epoch)
        assert equal(list(loader), collect(alone, epoch))
    assert equal(list(helped.test_dataloader()), list(alone.test_dataloader()))


@pytest.mark.parametrize("kind", ["memory", "folder"])
def test_a_resume_continues_bit_for_bit(kind: str, data_module: Make, folder: Path) -> None:
    def module() -> ImageData:
        memory = ("data=fake", "data.sizes=[64,8,8]", "data.batch_size=8")
        return data_module(*memory, *STRONG) if kind == "memory" else folder_module(data_module, folder)

    epoch_2, epoch_3 = collect(module(), 2), collect(module(), 3)
    resumed = module()
    resumed.start = (2, 2)
    torch.manual_seed(1234)  # nothing may hang on the global state
    loader = resumed.train_dataloader()
    assert len(loader) == len(epoch_2)
    loader.sampler.set_epoch(2)
    assert equal(list(loader), epoch_2[2:])
    loader.sampler.set_epoch(3)
    assert equal(list(loader), epoch_3)
    assert not equal(epoch_2, epoch_3)


def test_chunks_change_nothing(data_module: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = collect(data_module("data=fake", *STRONG))
    monkeypatch.setattr(readers, "CHUNK", 1)
    assert equal(collect(data_module("data=fake", *STRONG)), batches)


def test_micro_batches_hold_the_samples_of_the_whole(data_module: Make) -> None:
    whole = collect(data_module("data=fake", "augment=basic"))
    parts = collect(data_module("data=fake", "augment=basic", "trainer.accumulate=4"))
    assert len(parts) == 4 * len(whole)
    assert torch.equal(torch.cat([x for x, _ in parts]), torch.cat([x for x, _ in whole]))


def test_mixing_stops_in_the_last_epochs(data_module: Make) -> None:
    module = data_module("data=fake", *STRONG, "epochs=4", "augment.off_epochs=1")
    assert all(labels.dtype == torch.float32 for _, labels in collect(module, 2))
    assert all(labels.dtype == torch.int64 for _, labels in collect(module, 3))


def test_evaluation_is_every_image_once_normalised_in_order(data_module: Make) -> None:
    module = data_module("data=fake", *STRONG)
    batches = list(module.test_dataloader())
    labels = torch.cat([labels for _, labels in batches])
    assert torch.equal(labels, torch.arange(64) % 10)
    stored = module.source("test").images  # type: ignore[union-attr]
    expected = (stored / 255 - torch.tensor(module.mean).view(3, 1, 1)) / torch.tensor(module.std).view(3, 1, 1)
    assert torch.equal(torch.cat([images for images, _ in batches]), expected)
    assert torch.equal(module.eval_transform()(stored[7]), expected[7])


def test_another_image_size_resizes_within_range(data_module: Make) -> None:
    module = data_module("data=digits", "data.image_size=24", "augment=basic")
    images, _ = next(iter(module.train_dataloader()))
    assert images.shape == (64, 1, 24, 24)
    low, high = -module.mean[0] / module.std[0], (1 - module.mean[0]) / module.std[0]
    assert images.min() >= low - 1e-5
    assert images.max() <= high + 1e-5


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_cannot_be_read_is_named(workers: int, data_module: Make, folder: Path) -> None:
    (folder / "cat" / "004.jpg").write_bytes(b"no image")
    module = folder_module(
        data_module, folder, f"data.num_workers={workers}", "data.val_fraction=0.0", "data.batch_size=1"
    )
    loader = module.test_dataloader() if "004.jpg" in str(sorted(paths(module, "test"))) else module.train_dataloader()
    with pytest.raises(DataError, match=r"file \d+: .*cat.004\.jpg: not a readable image") as caught:
        list(loader)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "kind", "hint"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed.", ResourceError, "7 .* Killed, .* lower data.num_wo"),
        ("DataLoader worker (pid 7) is killed by signal: Aborted. ", ResourceError, "vitexp data check"),
        ("DataLoader worker (pid 7) is killed by signal: Bus error. It", ResourceError, "/dev/shm"),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", ResourceError, "data worker 7 is gone"),
        ("DataLoader timed out after 300 seconds", DataError, "data.timeout"),
        ("something else", RuntimeError, "something else"),
    ],
)
def test_lost_workers_are_explained(said: str, kind: type, hint: str, data_module: Make, folder: Path) -> None:
    loader = folder_module(data_module, folder).train_dataloader()
    assert isinstance(loader.reader, FileReader)

    def fail(*_: Any) -> Any:
        raise RuntimeError(said)
        yield

    with pytest.raises(kind, match=hint):
        loader.reader._next(fail())


# In a process of its own: torch raises the error of a lost worker anywhere there.
DISTURBED = """
import os, signal, sys, time
from vitexp import build
from vitexp.config.compose import compose
from vitexp.machine import workers

workers.WATCH_S = 0.2
cfg = compose(sys.argv[2:])
loader = build.build_data(cfg).train_dataloader()
try:
    for number, _ in enumerate(loader):
        if number == 0:
            os.kill(loader.reader.hands._table[0], int(sys.argv[1]))
        time.sleep(0.05)
except Exception as error:
    print(workers.lost_worker(error) or repr(error), flush=True)
    os._exit(0)
"""


@pytest.mark.parametrize(
    ("signum", "said"),
    [
        (signal.SIGKILL, "(was killed by signal Killed|is gone)"),  # the latter where torch notices before it asks why
        (signal.SIGSTOP, "was stopped by a signal"),
        pytest.param(signal.SIGSEGV, "(was killed by signal Segmentation fault|is gone)", marks=pytest.mark.slow),
        pytest.param(signal.SIGBUS, "(was killed by signal Bus error|is gone)", marks=pytest.mark.slow),
    ],
)
def test_a_worker_that_a_signal_ends_or_stops_is_told_with_its_file(
    signum: signal.Signals, said: str, folder: Path
) -> None:
    words = ["data=folder", f"data.root={folder}", "data.image_size=16", "data.num_workers=1", "data.batch_size=1"]
    command = [sys.executable, "-c", DISTURBED, str(int(signum)), *words, "data.timeout=20"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert re.search(rf"data worker \d+ {said} with \S+\.jpg in hand, ", done.stdout), done.stdout + done.stderr


def test_an_epoch_without_a_batch_is_an_error(data_module: Make) -> None:
    with pytest.raises(ConfigError, match="0 batches an epoch: 16 samples, batches of 32"):
        data_module("data=fake", "data.sizes=[16,8,8]").train_dataloader()


def test_nothing_held_out_means_no_validation(data_module: Make) -> None:
    assert data_module("data=fake", "data.sizes=[64,0,8]").val_dataloader() == []


def test_a_batch_that_cannot_be_cut_is_refused_at_once(data_module: Make) -> None:
    with pytest.raises(ConfigError, match=r"use data\.batch_size=33"):
        data_module("data=fake", "trainer.accumulate=3")


class Log(LightningModule):
    """Records what arrives, and trains nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[Tensor, Tensor]] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.seen.append(batch)
        return self.weight * batch[0].sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.filterwarnings("ignore")  # Lightning's own, about its dependencies
def test_under_lightning_each_epoch_is_its_own(data_module: Make, tmp_path: Path) -> None:
    module = data_module("data=fake", *STRONG)
    log = Log()
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        use_distributed_sampler=False,
    )
    trainer.fit(log, datamodule=module)
    again = data_module("data=fake", *STRONG)
    assert equal(log.seen, collect(again, 0) + collect(again, 1))
    assert isinstance(module.train_dataloader().reader, MemoryReader)
