"""The lines of a running run."""

import dataclasses

import pytest

from vitexp.report.live import Status, epoch_head, epoch_line, heartbeat, status_line

FULL = Status(
    "epoch 123/300",
    steps="1,234/5,004",
    fraction=0.41,
    remaining=45296.0,
    rate=12345.6,
    waiting=0.02,
    loss=1.2345,
    best=0.7654,
)


@pytest.mark.parametrize("width", range(20, 161, 7))
def test_status_fits_with_room_for_an_echoed_key(width: int) -> None:
    for status in (FULL, Status("val 1/2"), dataclasses.replace(FULL, best=None, loss=None)):
        text = status_line(status, width=width, ascii_only=False).plain
        assert len(text) <= width - 2
        assert text.startswith(status.label)


def test_eighty_columns_have_all_but_what_the_bar_says() -> None:
    status = dataclasses.replace(FULL, label="epoch 3/20", remaining=754.0)
    text = status_line(status, width=80, ascii_only=False).plain
    for part in ("ETA 12:34", "12,346 img/s", "loss 1.23", "best 0.7654", "━"):
        assert part in text


def test_wide_terminals_have_everything() -> None:
    text = status_line(FULL, width=160, ascii_only=False).plain
    assert all(field in text for _, field, _ in FULL.fields())


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 1.0, 1.5])
def test_bar_shows_the_fraction(fraction: float) -> None:
    text = status_line(Status("a", fraction=fraction), width=80, ascii_only=True).plain
    full, empty = text.count("#"), text.count(".")
    assert full + empty == 40
    assert full == round(40 * min(1.0, fraction))
    assert text.isascii()


def test_heartbeat_is_the_status_in_plain() -> None:
    assert heartbeat(FULL).startswith("epoch 123/300  1,234/5,004  41%")


def test_epoch_lines_stand_below_their_head() -> None:
    head = epoch_head(["train/loss", "val/loss", "val/top1"])
    line = epoch_line("123/300", [1.5, None, 0.9], lr=3e-4, seconds=7445, rate=12345, waiting=0.02)
    assert len(line) == len(head) <= 80
    assert line.index("0.9000") + len("0.9000") == head.index("val top1") + len("val top1")
    assert "–" in line
    slow = epoch_line("1/2", [1.5, 0.1, 0.9], lr=None, seconds=3, rate=1.25, waiting=1.0)
    assert len(slow) == len(head)
    assert "1.25" in slow
