"""A run to bend, trained once."""

from pathlib import Path

import pytest

from tests.hostile.folders import SMALL
from tests.hostile.judge import judge


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run, trained once."""
    work = tmp_path_factory.mktemp("trained") / "work"
    work.mkdir()
    assert judge(SMALL, folder=work).code == 0
    return next(work.glob("outputs/[0-9]*/*"))
