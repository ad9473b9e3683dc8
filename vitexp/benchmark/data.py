"""`benchmark what=data`: images a second of training batches of a set in memory, beside a DataLoader that uses Pillow.

The usual way is torchvision's: one image at a time through Pillow, cropped, flipped, made a tensor and normalised, with
and without workers. Ours is the run's own loader. Everything on one thread; all give normalised float batches.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vitexp import build
from vitexp.benchmark.report import Report
from vitexp.benchmark.timing import summary
from vitexp.config.command import Command
from vitexp.config.compose import compose
from vitexp.data.pixels import Pixels
from vitexp.data.source import MemorySource
from vitexp.errors import ConfigError

# Without `data=`: made-up images of CIFAR's shape, more of them than a cache holds.
_USUAL = ("data=fake", "data.sizes=[20000,1,1]", "data.batch_size=128")
_PADDING = 4
_SECONDS = 0.5  # of each turn


def time_data(command: Command) -> Report:
    """Time batches of the training set.

    Raises:
        ConfigError: a set that does not live in memory.
    """
    chosen = any(text.startswith("data=") for text in command.overrides)
    cfg = command.cfg if chosen else compose([*_USUAL, *command.overrides])
    data = build.build_data(cfg)
    source = data.source("train")
    if not isinstance(source, MemorySource):
        raise ConfigError(
            f"benchmark what=data times a set in memory, and data={cfg.chosen.data} is read from files;"
            " use data=cifar100, or leave data= out for made-up images"
        )
    with one_thread():
        streams = {
            "Pillow": _forever(pillow_loader(source, data.pixels, cfg.data.batch_size, workers=0)),
            "Pillow, 2 workers": _forever(pillow_loader(source, data.pixels, cfg.data.batch_size, workers=2)),
            "vitexp": _forever(data.train_dataloader()),
        }
        rounds = _rounds(streams, cfg.benchmark.repeats)
    timings = summary(rounds)
    rows = [
        (name, *(round(1 / seconds) for seconds in (t.seconds, t.slowest, t.fastest)), round(t.ratio, 1))
        for name, t in timings.items()
    ]
    ours = timings["vitexp"]
    over = {f"over {name}": t.seconds / ours.seconds for name, t in timings.items() if t is not ours}
    title = f"{cfg.chosen.data}, {len(source):,} images, batch {cfg.data.batch_size}, one thread"
    columns = ("training batches", "median img/s", "slowest", "fastest", "× Pillow")
    return Report(title, columns, rows, {"images a second": 1 / ours.seconds, **over})


def _rounds(streams: dict[str, Iterator[tuple[Tensor, Tensor]]], repeats: int) -> dict[str, list[float]]:
    """Seconds an image of each stream, in turns; a first round does not count."""
    rounds: dict[str, list[float]] = {name: [] for name in streams}
    for _ in range(1 + repeats):
        for name, stream in streams.items():
            rounds[name].append(seconds_an_image(stream, at_least=_SECONDS))
    return {name: seconds[1:] for name, seconds in rounds.items()}


def seconds_an_image(stream: Iterator[tuple[Tensor, Tensor]], *, at_least: float) -> float:
    """Take batches for `at_least` seconds."""
    start, count = perf_counter(), 0
    while (seconds := perf_counter() - start) < at_least or not count:
        images, _ = next(stream)
        count += len(images)
    return seconds / count


def pillow_loader(source: MemorySource, pixels: Pixels, batch_size: int, *, workers: int) -> Iterable[Any]:
    """The loader that tutorials train CIFAR with: torchvision's transforms on Pillow images, shuffled batches."""
    return DataLoader(
        _PillowImages(source, pixels),
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


class _PillowImages(Dataset[tuple[Tensor, int]]):
    def __init__(self, source: MemorySource, pixels: Pixels) -> None:
        from torchvision import transforms

        self.images = source.images.permute(0, 2, 3, 1).numpy()  # (N, H, W, C)
        self.labels = source.labels.tolist()
        steps = [
            transforms.ToPILImage(),
            transforms.RandomCrop(pixels.image_size, padding=_PADDING),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(pixels.mean, pixels.std),
        ]
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def _forever(loader: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches, epoch after epoch."""
    epoch = 0
    while True:
        if hasattr(loader.sampler, "set_epoch"):
            loader.sampler.set_epoch(epoch)
        yield from loader
        epoch += 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
