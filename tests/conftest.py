"""Fixtures that every folder uses."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def data_root() -> Callable[[str], Path]:
    """The folder that holds the real data set `name` ($VITEXP_DATA), else the test is skipped."""

    def find(name: str) -> Path:
        root = Path(os.environ.get("VITEXP_DATA", ""))
        if not os.environ.get("VITEXP_DATA") or not (root / name).is_dir():
            pytest.skip(f"real data absent: set VITEXP_DATA to a folder that holds {name}/")
        return root

    return find
