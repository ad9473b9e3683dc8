"""Data modules from the shipped configuration, and image folders to read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hydra.errors import InstantiationException
from PIL import Image

from vitexp.build import make
from vitexp.config import compose
from vitexp.data.base import ImageData
from vitexp.errors import VitexpError


@pytest.fixture
def data_module() -> Callable[..., ImageData]:
    """The data module of a configuration: `data_module("data=digits", "seed=3")`."""

    def build(*overrides: str) -> ImageData:
        try:
            module: ImageData = make(compose(overrides).data.module)
        except InstantiationException as error:  # Hydra wraps what a constructor raises
            if isinstance(error.__cause__, VitexpError):
                raise error.__cause__ from None
            raise
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
