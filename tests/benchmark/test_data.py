"""Both ways of making batches give the same kind of batch."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.commands import command
from vitexp import build
from vitexp.benchmark import data
from vitexp.errors import ConfigError

SMALL = ["data=fake", "data.sizes=[64,8,8]", "bs=16", "benchmark.repeats=1"]


def test_both_ways_are_timed(monkeypatch) -> None:
    monkeypatch.setattr(data, "_SECONDS", 0.01)
    report = data.time_data(command(*SMALL))
    assert [row[0] for row in report.rows] == ["Pillow", "Pillow, 2 workers", "vitexp"]
    assert report.ratios["over Pillow"] > 0
    assert report.ratios["images a second"] > 0


def test_pillow_batches_look_like_ours() -> None:
    module = build.build_data(command(*SMALL).cfg)
    ours, labels = next(iter(module.train_dataloader()))
    theirs, their_labels = next(iter(data.pillow_loader(module.source("train"), module.pixels, 16, workers=0)))
    assert theirs.shape == ours.shape
    assert theirs.dtype == ours.dtype
    assert theirs.std() == pytest.approx(float(ours.std()), rel=0.3)
    assert their_labels.dtype == labels.dtype


def test_files_are_not_a_set_in_memory(tmp_path: Path) -> None:
    for name in ("cat/a.png", "cat/b.png", "cat/c.png", "dog/a.png", "dog/b.png", "dog/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    with pytest.raises(ConfigError, match="in memory"):
        data.time_data(command("data=folder", f"data.root={tmp_path}", "bs=2"))


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with data.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
