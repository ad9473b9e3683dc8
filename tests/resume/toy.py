"""A run small enough to be killed hundreds of times, and what two equal runs have in common; not a test itself.

`session` is `vitexp train` or `vitexp resume` from the checked configuration on, without pages and pictures, which have
tests of their own and which nothing resumes from.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from pytorch_lightning import Callback

from vitexp.config.command import Command
from vitexp.config.compose import canonical, compose
from vitexp.run import fit
from vitexp.run.folder import all_runs, find
from vitexp.verb.resume import ALLOWED, resume
from vitexp.verb.train import train

# Two epochs of four steps of eight images; a checkpoint at every safe point, a row of metrics at every step.
TOY = [
    *("model=vit_nano", "model.dim=16", "model.stem.channels=[8,8]", "model.dropout=0.1", "size=8"),
    *("bs=8", "epochs=2", "logger=none", "quiet=true", "trainer.checkpoint_seconds=0", "trainer.log_every=1"),
]
MEMORY = ["data=fake", "data.sizes=[32,16,8]"]
FILES = ["data=folder", "data.root=images", "data.val_fraction=0.2", "data.test_fraction=0.1", "augment=basic"]


class Killed(BaseException):
    """As sudden as SIGKILL, as far as saving goes: no callback runs after it that could save."""


class Death(Callback):
    """Raise Killed in a hook when so many optimizer steps are done."""

    def __init__(self, hook: str, step: int) -> None:
        self.step = step
        setattr(self, hook, self._die)  # found before the hook of the class

    def _die(self, trainer: Any, *arguments: Any) -> None:
        if trainer.global_step == self.step:
            raise Killed


@cache
def composed(words: tuple[str, ...]) -> DictConfig:
    """Composing takes longer than the rest of a session."""
    return compose(words)


def command(words: Sequence[str]) -> Command:
    """A checked command on a configuration of its own."""
    return Command(composed(tuple(words)).copy(), [canonical(word) for word in words], list(words))


@contextmanager
def bare(*deaths: Callback) -> Iterator[None]:
    """Without pages and pictures, and with callbacks that die."""
    original = fit._callbacks
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitexp.run.fit._draw", lambda *parts: None)
        patch.setattr("vitexp.verb.report.write_run_page", lambda run: run.path)
        patch.setattr("vitexp.run.fit._callbacks", lambda *parts: [*original(*parts), *deaths])
        yield


def session(words: Sequence[str], *deaths: Callback) -> bool:
    """Train, or go on where there is a run; whether it came to its end."""
    with bare(*deaths):
        try:
            if all_runs(Path("outputs")):
                resume(command([word for word in words if word.partition("=")[0] in ALLOWED or word == "quiet=true"]))
            else:
                train(command(words))
        except Killed:
            return False
    return True


def outcome(place: Path) -> dict[str, str]:
    """Everything that two equal runs have in common, each part by its SHA-256; times and names left out."""
    run = find("last", place / "outputs")
    assert run.record["state"] == "done"
    last = torch.load(run.checkpoints / "last.ckpt", weights_only=True)
    best = torch.load(run.checkpoints / "best.ckpt", weights_only=True)
    callbacks = {key.partition("{")[0]: value for key, value in last["callbacks"].items()}
    weights = list(run.path.glob("*.safetensors"))
    progress = last["loops"]["fit_loop"]
    parts = {
        "weights": last["state_dict"],
        "optimizer": last["optimizer_states"],
        "schedule": last["lr_schedulers"],
        "callbacks": callbacks,
        "counters": [last["epoch"], last["global_step"], last["vitexp"], progress["epoch_progress"]["total"]],
        "best": best,
        "exported": [torch.frombuffer(bytearray(_tensors(path)), dtype=torch.uint8) for path in weights],
        "metrics": [_timeless(row) for row in csv.DictReader(io.StringIO((run.path / "metrics.csv").read_text()))],
        "final": _timeless(run.record["metrics"]),
    }
    assert weights
    return {name: digest(part) for name, part in parts.items()}


def digest(content: Any) -> str:
    """SHA-256 of tensors, numbers, texts and containers of them."""
    state = hashlib.sha256()

    def add(node: Any) -> None:
        if isinstance(node, torch.Tensor):
            state.update(f"{node.dtype}{tuple(node.shape)}".encode())
            state.update(node.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(node, dict):
            for key, value in node.items():
                state.update(f"{key}:".encode())
                add(value)
        elif isinstance(node, list | tuple):
            for value in node:
                add(value)
        else:
            state.update(f"{node!r};".encode())

    add(content)
    return state.hexdigest()


def steps(place: Path) -> list[int]:
    """The steps of metrics.csv."""
    rows = (find("last", place / "outputs").path / "metrics.csv").read_text().splitlines()[1:]
    return [int(row.split(",", 1)[0]) for row in rows]


def images(root: Path, *, classes: int = 2, each: int = 24) -> Path:
    """Small pictures of noise, of two brightnesses."""
    random = np.random.default_rng(0)
    for name in range(classes):
        (root / f"class{name}").mkdir(parents=True)
        for number in range(each):
            pixels = random.integers(40 * name, 160 + 40 * name, (10, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"class{name}" / f"{number:02d}.png")
    return root


def differing(first: dict[str, str], second: dict[str, str]) -> list[str]:
    """Names of the parts that are not equal."""
    return [name for name in first if first[name] != second[name]]


def in_place(place: Path, work: Callable[[], Any]) -> Any:
    """Do something with `place` as the working directory."""
    place.mkdir(exist_ok=True)
    here = Path.cwd()
    os.chdir(place)
    try:
        return work()
    finally:
        os.chdir(here)


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    """Without what a clock has measured."""
    return {name: value for name, value in row.items() if not name.endswith("_per_s")}


def _tensors(path: Path) -> bytes:
    """The content of a safetensors file without its header, which names the run."""
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert len(header) > 1
    return content[8 + int.from_bytes(content[:8], "little") :]
