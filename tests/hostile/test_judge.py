"""The judge itself: each rule is broken once, so that an outcome without faults says something."""

from pathlib import Path

import pytest

from tests.hostile.judge import _outside, _spellings, judge, observe


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    (tmp_path / "beside").mkdir()
    return tmp_path / "work"


def test_a_command_that_holds_has_no_faults(work: Path) -> None:
    outcome = judge(["list", "runs"], folder=work, canaries=["secret"])
    assert outcome.code == 0
    assert "no runs yet" in outcome.out
    assert outcome.peak_bytes < 2**30
    assert judge(["list", "nothing"], folder=work).code == 2


def test_the_pages_of_the_dashboard_are_printed(work: Path) -> None:
    assert "<html" in judge(["dashboard", "outputs=runs"], folder=work).out


def test_what_is_written_beside_is_a_fault(work: Path) -> None:
    (work / "outputs").symlink_to(work.parent / "beside")
    words = ["data=fake", "data.sizes=[16,8,8]", "size=8", "bs=8", "epochs=1", "logger=none", "trainer.log_every=1"]
    faults = observe(words, folder=work).faults
    assert faults
    assert all(fault.startswith(f"touched {work.parent}/beside") for fault in faults)


def test_a_canary_is_found_where_it_is_printed_or_written(work: Path) -> None:
    assert observe(["list", "hidden-word"], folder=work, canaries=["hidden-word"]).faults == (
        "'hidden-word' is in the screen",
    )
    faults = observe(["new", "attention", "hidden"], folder=work, canaries=["hidden"]).faults
    assert any(fault.endswith("hidden.py") for fault in faults)
    for shift in range(3):
        import base64

        code = base64.b64encode(b"x" * shift + b"a hidden word" + b"and what follows")
        assert any(spelling in code for spelling in _spellings("a hidden word"))


def test_changes_of_every_kind_are_seen(work: Path) -> None:
    file = work.parent / "beside" / "a"
    before = _outside(work)
    file.write_text("1")
    made = _outside(work)
    assert made != before
    file.write_text("2")
    assert _outside(work) != made
    file.unlink()
    assert _outside(work) == before
    file.symlink_to("/nowhere")
    assert _outside(work) != before
    (work / "inside").write_text("1")
    file.unlink()
    assert _outside(work) == before
