"""Data modules from the shipped configuration, and image folders to read."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from vitexp.build import make
from vitexp.config.compose import compose
from vitexp.data.base import ImageData


@cache
def composed(groups: tuple[str, ...]) -> DictConfig:
    """The shipped configuration; composing it takes longer than most tests here."""
    return compose(groups)


@pytest.fixture
def data_module() -> Callable[..., ImageData]:
    """The data module of a configuration: `data_module("data=digits", "seed=3")`."""

    def build(*overrides: str) -> ImageData:
        groups = tuple(text for text in overrides if text.startswith(("data=", "augment=", "model=")))
        cfg = OmegaConf.merge(composed(groups), OmegaConf.from_dotlist([o for o in overrides if o not in groups]))
        module: ImageData = make(cfg.data.module)
        return module

    return build


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write noise photographs: `image_folder("train", {"cat": 3, "dog": 2})` -> the root."""

    def write(split: str, counts: dict[str, int]) -> Path:
        random = np.random.default_rng(len(split))
        for name, count in counts.items():
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                coarse = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
                Image.fromarray(coarse).resize((48, 40)).save(folder / f"{number:03d}.jpg", quality=90)
        return tmp_path / "set"

    return write
