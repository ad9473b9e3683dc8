"""All forms of the same images are timed in one run, packed ones by every kernel of the device."""

import pytest

from tests.commands import command
from vitexp.benchmark.packing import time_packing
from vitexp.errors import ConfigError

SMALL = ["model=navit_nano", "data=fake", "data.sizes=[16,8,8]", "bs=4", "benchmark.repeats=1"]


def test_every_form_is_timed() -> None:
    report = time_packing(command(*SMALL))
    forms = [row[1] for row in report.rows if row[0] == "training step"]
    assert forms[0] == "padded to the longest"
    assert {"packed, kernel mask", "packed, kernel split", "packed, kernel jagged"} <= set(forms)
    assert forms[-1] == "one size, 32 × 32"
    tokens = {row[1]: row[2] for row in report.rows}
    assert tokens["packed, kernel mask"] == tokens["padded to the longest"]
    padding = {row[1]: row[3] for row in report.rows}
    assert padding["packed, kernel mask"] != padding["padded to the longest"]
    assert report.ratios["forward: padded to the longest"] == 1.0
    assert len(report.rows) == 2 * len(forms)


def test_a_model_that_does_not_pack() -> None:
    with pytest.raises(ConfigError, match=r"model=vit_nano takes them whole; use model=navit_ti16"):
        time_packing(command("model=vit_nano", *SMALL[1:]))
