"""The verb: contenders take turns, and what= picks the table."""

from vitexp.benchmark.timing import alternate
from vitexp.cli import main


def test_contenders_take_turns_and_ratios_are_to_the_first() -> None:
    calls: list[str] = []
    timings = alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3, warmup=1)
    assert calls == ["a", "b"] * 4
    assert timings["a"].ratio == 1.0
    assert timings["b"].fastest <= timings["b"].seconds <= timings["b"].slowest


def test_waiting_for_a_device_is_part_of_the_time() -> None:
    waits: list[str] = []
    alternate({"a": lambda: None}, repeats=2, warmup=1, wait=lambda: waits.append("w"))
    assert waits == ["w"] * 3


def test_benchmark_prints_a_table(capsys) -> None:
    arguments = ["model=vit_micro", "data=fake", "bs=1", "against=none", "benchmark.repeats=1"]
    assert main(["benchmark", *arguments]) == 0
    out = capsys.readouterr().out
    assert "vit_micro, 32 × 32, batch 1" in out
    assert "training step" in out


def test_what_cannot_be_timed_is_a_mistake(capsys) -> None:
    assert main(["benchmark", "what=modle"]) == 2
    assert "use model, runner, start, data, regimes or packing" in capsys.readouterr().err
