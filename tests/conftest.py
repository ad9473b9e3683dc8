"""Fixtures that every folder uses."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several processes of tests share the cores; said before torch is imported, and to the processes that tests start.
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))
    # readline puts the size of a terminal there that is none.
    os.environ.pop("COLUMNS", None)
    os.environ.pop("LINES", None)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Hydra's multirun and --info set the root logger up, on a captured stream that closes with the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def data_root() -> Callable[[str], Path]:
    """The folder that holds the real data set `name` ($VITEXP_DATA), else the test is skipped."""

    def find(name: str) -> Path:
        root = Path(os.environ.get("VITEXP_DATA", ""))
        if not os.environ.get("VITEXP_DATA") or not (root / name).is_dir():
            pytest.skip(f"real data absent: set VITEXP_DATA to a folder that holds {name}/")
        return root

    return find
