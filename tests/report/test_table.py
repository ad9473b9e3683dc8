"""Tables: what data says is shown as it is, whole in a pipe, within 80 columns on a terminal."""

import io
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from vitexp.report.console import make_console
from vitexp.report.table import (
    card,
    header,
    mean_std,
    metrics_table,
    models_table,
    options_table,
    predictions_table,
    runs_table,
    sweep_table,
    value_table,
)

EVIL = "[red]x[/red] :smile: \x1b[31m\u202e"
NAME = "101502-vit_nano-digits-full-3f2a"


def terminal(renderable: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


def pipe(renderable: RenderableType) -> str:
    file = io.StringIO()
    make_console(file).print(renderable)
    return file.getvalue()


def run(**fields: Any) -> dict[str, Any]:
    row = {"name": NAME, "model": "vit_nano", "data": "digits", "regime": "full", "state": "done"}
    return {**row, "metric": "test/top1", "value": 0.991, "duration_s": 6.2, **fields}


def job(lr: str, seed: int, top1: float, state: str = "done") -> dict[str, Any]:
    metrics = {"val/top1": 0.5, "test/top1": top1, "test/loss": 0.1} if state == "done" else {}
    return {"overrides": {"optimizer.lr": lr, "seed": str(seed)}, "metrics": metrics, "state": state}


def head(**fields: Any) -> RenderableType:
    given: dict[str, Any] = {
        "name": NAME,
        "folder": "outputs/2026-11-23/" + NAME,
        "device": "cpu",
        "precision": "32-true",
        "parameters": (58346, 58346),
        "macs": 1.26e6,
        "sizes": {"train": 1293, "val": 144, "test": 360},
        "batch": "64",
        "schedule": "cosine",
    }
    return header(**{**given, **fields})


def last_card(**fields: Any) -> RenderableType:
    given: dict[str, Any] = {
        "name": NAME,
        "folder": "outputs/2026-11-23/" + NAME,
        "best": {"val/top1": 0.9931},
        "last": {"val/top1": 0.9861, "test/top1": 0.991},
        "seconds": 6.2,
        "commands": [("vitexp evaluate run=last", "test it"), ("vitexp list runs", "all"), ("vitexp resume", "on")],
    }
    return card(**{**given, **fields})


ALL = [
    runs_table([run(), run(name=EVIL, state="failed", value=None, metric=None, duration_s=None)]),
    options_table("model", [("vit_nano", EVIL), (EVIL, "long " * 40)]),
    value_table(["a", "b"], [[1, EVIL], [None, 0.5]], title=EVIL),
    predictions_table(
        [
            {"image": EVIL, "classes": [EVIL, "b"], "probabilities": [0.9, 0.1]},
            {"image": "b.jpg", "classes": ["c"], "probabilities": [1.0]},
        ]
    ),
    metrics_table({"test/top1": 0.5, EVIL: 1.0}),
    sweep_table([job("1e-3", seed, 0.9) for seed in range(3)]),
    head(name=EVIL, settings=[EVIL]),
    last_card(name=EVIL, folder=EVIL),
]


@pytest.mark.parametrize("renderable", ALL)
def test_no_line_is_longer_than_the_terminal(renderable: RenderableType) -> None:
    for line in terminal(renderable).splitlines():
        assert len(line) <= 80


@pytest.mark.parametrize("show", [terminal, pipe])
def test_markup_and_escapes_in_data_are_only_text(show: Any) -> None:
    for renderable in ALL:
        text = show(renderable)
        assert all(char.isprintable() or char == "\n" for char in text)
    assert "[red]x[/red] :smile:" in show(ALL[4])


def test_a_plain_console_shows_them_safely_too() -> None:
    console = Console(file=io.StringIO(), width=200)
    console.print(ALL[4])
    assert "[red]x[/red] :smile:" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_pipe_gets_whole_rows_without_frames() -> None:
    long = run(name="x" * 150)
    assert any("x" * 150 in line and "0.9910" in line for line in pipe(runs_table([long])).splitlines())
    assert "╭" not in pipe(last_card())
    assert "╭" in terminal(last_card())


def test_runs_on_a_narrow_terminal_keep_names_whole() -> None:
    other = run(name="tuned", model="vit_b16", data="imagenet", regime="memory_masked", state="interrupted")
    narrow = terminal(runs_table([run(), other]))
    assert NAME in narrow
    assert "interrupted" in narrow
    assert "vit_b16 imagenet memory_masked" in narrow  # what its name does not say
    assert "vit_nano digits full" not in narrow
    assert "regime" in terminal(runs_table([run(), other]), width=140)


def test_runs_name_the_metric_once_if_all_share_it() -> None:
    assert terminal(runs_table([run(), run()])).count("test/top1") == 1
    assert "val/top1 0.5000" in terminal(runs_table([run(), run(metric="val/top1", value=0.5)]))
    assert "no runs" in terminal(runs_table([]))


def test_sweep_is_mean_and_deviation_over_seeds() -> None:
    values = [0.98, 0.99, 1.0]
    jobs = [job("1e-3", seed, value) for seed, value in enumerate(values)]
    text = terminal(sweep_table([*jobs, job("3e-4", 0, 0.5), job("3e-4", 1, 0.0, state="failed")]))
    assert f"0.9900 ± {statistics.stdev(values):.4f}" in text
    assert "3 done" in text
    assert "1 done, 1 failed" in text
    assert "seed" not in text
    assert "val/top1" not in text  # the test metrics are what a sweep is compared by
    assert len([line for line in text.splitlines() if "e-" in line]) == 2


def test_a_sweep_shows_the_best_first_and_what_failed_last() -> None:
    def order(metric: str, values: dict[str, float | None]) -> list[str]:
        rows = [
            {"overrides": {"lr": name}, "state": "done", "metrics": {} if value is None else {metric: value}}
            for name, value in values.items()
        ]
        return [line.split()[0] for line in pipe(sweep_table(rows)).splitlines() if line[:1] in "abc" and line]

    assert order("test/top1", {"a": 0.5, "b": None, "c": 0.9}) == ["c", "a", "b"]
    assert order("val/loss", {"a": 0.5, "b": None, "c": 0.9}) == ["a", "c", "b"]


def test_mean_std() -> None:
    assert mean_std([]) == "–"
    assert mean_std([0.5]) == "0.5000"
    assert mean_std([0.5, 0.5]) == "0.5000 ± 0.0000"
    assert mean_std([float("nan")]) == "nan"


def test_many_predictions_are_in_the_file() -> None:
    rows = [{"image": f"{k}.jpg", "classes": ["a", "b"], "probabilities": [0.75, 0.25]} for k in range(200)]
    text = terminal(predictions_table(rows, Path("out/predictions.csv")))
    assert text.count(".jpg") == 50
    assert "150 more; all 200 in out/predictions.csv" in text
    assert "75.0 %" in text
    assert terminal(predictions_table(rows)).count(".jpg") == 200


def test_header_says_what_trains() -> None:
    text = terminal(head(parameters=(1200, 5_526_346)))
    assert "1,200 of 5,526,346 trainable parameters" in text
    assert "1.26 MMAC" in text
    assert "train 1,293, val 144, test 360" in text
    assert "MAC" not in terminal(head(macs=None))


def test_card_has_best_last_folder_and_commands() -> None:
    text = terminal(last_card())
    for part in ("0.9931", "0.9861", "0.9910", "outputs/", "vitexp resume"):
        assert part in text


def test_tables_do_not_import_torch() -> None:
    names = "vitexp.report.table, vitexp.report.console, vitexp.report.live, vitexp.report.metrics"
    names += ", vitexp.report.plot_curves, vitexp.report.plot_confusion, vitexp.report.plot_images"
    heavy = "{'torch', 'matplotlib', 'pytorch_lightning', 'PIL'}"
    code = f"import sys, {names}; sys.exit(bool({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_models_show_their_figures_and_whose_they_are_where_there_is_room() -> None:
    figures = {"parameters": 5_717_416, "gmacs": 1.254, "image_size": 224, "top1": 78.22, "paper": "P", "source": EVIL}
    table = models_table([("vit_ti16", figures), ("ours", {})])
    assert "whose figure" in pipe(table)
    narrow = terminal(table, width=70)
    for shown in ("5,717,416", "1.254", "224", "78.22", "ours"):
        assert shown in narrow
    assert "whose figure" not in narrow
