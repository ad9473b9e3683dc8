"""The benchmark compares like with like, in turns."""

from vitexp.cli import main
from vitexp.timing import alternate


def test_contenders_take_turns_and_ratios_are_to_the_first() -> None:
    calls: list[str] = []
    timings = alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3, warmup=1)
    assert calls == ["a", "b"] * 4
    assert timings["a"].ratio == 1.0
    assert timings["b"].fastest <= timings["b"].seconds <= timings["b"].slowest


def test_benchmark_prints_ratios(capsys) -> None:
    arguments = ["model=vit_ti16", "model.depth=12", "data=fake", "size=224", "bs=1", "benchmark.repeats=1"]
    assert main(["benchmark", *arguments]) == 0
    assert "training step" in capsys.readouterr().out


def test_another_model_is_no_peer(capsys) -> None:
    assert main(["benchmark", "model=vit_s16", "data=fake", "size=224", "bs=1"]) == 2
    assert "parameter counts differ" in capsys.readouterr().err
