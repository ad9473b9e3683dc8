"""`vitexp analyze` and `vitexp prune` from the command line, and an analysis during training."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vitexp.cli import main
from vitexp.run.folder import find

SMALL = ["data=fake", "data.sizes=[64,32,32]", "model.depth=2", "epochs=2", "bs=16", "logger=none", "quiet=true"]
FEW = ["analysis.num_images=3"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two equal runs: `plain`, and `looked`, which measured similarity at every second epoch."""
    folder, here = tmp_path_factory.mktemp("trained"), Path.cwd()
    os.chdir(folder)
    try:
        assert main([*SMALL, "name=plain"]) == 0
        assert main([*SMALL, "name=looked", "analysis=similarity", "analysis.every=2", *FEW]) == 0
    finally:
        os.chdir(here)
    return folder


def run(folder: Path, name: str) -> Path:
    return next((folder / "outputs").glob(f"[0-9]*/*-{name}-*"))


def test_a_curve_over_epochs_and_the_picture_at_the_end(trained: Path) -> None:
    path = run(trained, "looked")
    with (path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    measured = {int(row["step"]): row["analysis/similarity/softmax/adjacent_cosine"] for row in rows}
    assert [step for step, value in measured.items() if value] == [0, 8]
    assert {file.name for file in (path / "analysis").iterdir()} == {f"similarity.{s}" for s in ("csv", "png", "svg")}
    assert "Similarity: adjacent cosine" in (path / "report.html").read_text()
    with (path / "analysis" / "similarity.csv").open(newline="") as file:
        assert {row["of"] for row in csv.DictReader(file)} == {"trained", "untrained"}


def test_the_last_values_are_metrics_of_the_run_and_are_printed(trained: Path, monkeypatch, capsys) -> None:
    metrics = json.loads((run(trained, "looked") / "run.json").read_text())["metrics"]
    assert 0 < metrics["analysis/similarity/softmax/adjacent_cosine"] <= 1
    monkeypatch.chdir(trained)
    assert main([*SMALL, "epochs=1", "name=told", "analysis=heads", "quiet=false", *FEW]) == 0
    shown = capsys.readouterr().out
    assert "softmax/mean" in shown
    assert "untrained" in shown


def test_looking_does_not_change_the_training(trained: Path) -> None:
    plain, looked = (load_file(run(trained, name) / "weights.safetensors") for name in ("plain", "looked"))
    assert all(torch.equal(plain[name], looked[name]) for name in plain)


def test_analyze_a_run_beside_another(trained: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(trained)
    path, other = run(trained, "plain"), run(trained, "looked")
    words = ["analysis=amplitude", f"run={path}", f"analysis.beside=[{other.name}]", "quiet=false", *FEW]
    assert main(["analyze", *words]) == 0
    shown = capsys.readouterr().out
    assert "variance_max_over_min" in shown
    assert "untrained" in shown
    with (path / "analysis" / "amplitude.csv").open(newline="") as file:
        assert {row["of"] for row in csv.DictReader(file)} == {path.name, "untrained", other.name}


def test_numbers_and_picture_reach_tensorboard_and_the_page(trained: Path, monkeypatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(trained)
    path = run(trained, "plain")
    assert main(["analyze", "analysis=distance", f"run={path}", "logger=tensorboard", *FEW]) == 0
    events = EventAccumulator(str(path / "tensorboard"))
    events.Reload()
    (value,) = events.Scalars("analysis/distance/mean_pixels")
    (picture,) = events.Images("analysis/distance")
    assert (value.step, picture.step) == (8, 8)
    assert value.value > 0
    assert "<figcaption>distance" in (path / "report.html").read_text()


@pytest.mark.slow  # wandb takes seconds to start and stop
def test_numbers_and_picture_reach_wandb(trained: Path, monkeypatch) -> None:
    monkeypatch.chdir(trained)
    monkeypatch.setenv("WANDB_MODE", "offline")
    path = run(trained, "plain")
    assert main(["analyze", "analysis=distance", f"run={path}", "logger=wandb", *FEW]) == 0
    (record,) = (path / "wandb").glob("offline-run-*/*.wandb")
    assert b"analysis/distance" in record.read_bytes()


def test_runs_beside_look_at_the_same_changed_data(trained: Path, monkeypatch) -> None:
    """Equal runs differ in nothing, whatever key of the data is changed for both."""
    monkeypatch.chdir(trained)
    path, other = run(trained, "plain"), run(trained, "looked")
    words = [f"run={path}", f"analysis.beside=[{other.name}]", "analysis.untrained=false", *FEW]
    assert main(["analyze", "analysis=amplitude", "data=fake", "data.pattern=3", *words]) == 0
    with (path / "analysis" / "amplitude.csv").open(newline="") as file:
        rows = [[value for key, value in row.items() if key != "of"] for row in csv.DictReader(file)]
    assert rows[:2] == rows[2:]
    assert len(rows) == 4


def test_analyze_a_fresh_model(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["analyze", "analysis=distance", *SMALL, *FEW]) == 0
    (folder,) = (tmp_path / "outputs" / "analyses").iterdir()
    assert (folder / "distance.csv").read_text().startswith("of,block,head,pixels\nuntrained,0,0,")


def test_prune_saves_a_run_like_any_other(trained: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(trained)
    before = run(trained, "plain")
    words = ["analysis.budget=0.6", "analysis.num_images=16", "analysis.rounds=2", "epochs=1", "name=smaller"]
    assert main(["prune", f"run={before}", *words]) == 0
    after = find("last", Path("outputs"))
    sizes = [sum(t.numel() for t in load_file(p / "weights.safetensors").values()) for p in (before, after.path)]
    assert sizes[1] < 0.8 * sizes[0]
    assert after.config().pruned.layers[0].name == "blocks.0.attention"
    assert main(["evaluate", "run=last", "quiet=true"]) == 0
    (file,) = (after.path / "evaluations").glob("*/evaluation.json")
    tested = json.loads(file.read_text())["metrics"]["test/loss"]
    assert tested == pytest.approx(after.record["metrics"]["test/loss"], rel=1e-6)
    # The weights alone say how wide they are.
    assert main(["evaluate", *SMALL, f"checkpoint={after.path / 'weights.safetensors'}"]) == 0
    shallow = [word for word in SMALL if word != "model.depth=2"]
    assert main(["evaluate", *shallow, "model.depth=1", f"checkpoint={after.path / 'weights.safetensors'}"]) == 2
    assert "the weights were pruned in blocks.1.attention" in capsys.readouterr().err


@pytest.mark.slow
def test_transfer_tests_and_tunes_at_other_sizes(trained: Path, monkeypatch) -> None:
    monkeypatch.chdir(trained)
    path = run(trained, "plain")
    words = ["analysis.sizes=[32,48]", "analysis.finetune_epochs=1"]
    assert main(["analyze", "analysis=transfer", f"run={path}", *words]) == 0
    with (path / "analysis" / "transfer.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["size"] for row in rows] == ["32", "48"]
    record = json.loads((path / "run.json").read_text())
    assert float(rows[0]["top1"]) == pytest.approx(record["metrics"]["test/top1"], abs=1e-5)
    assert all(0 <= float(row["top1_tuned"]) <= 1 for row in rows)


NONSENSE = {
    "analyze": "analyze needs an analysis; none was chosen; use analysis=amplitude",
    "analyze analysis=similarity analysis.tau=1.5": "use a value from 0 to 1",
    "analyze analysis=similarity analysis.split=tset": "use train, val or test",
    "analyze analysis=similarity run=nosuchrun": "matches no run",
    "analyze analysis=similarity analysis.num_images=0": "use a value above 0",
    "prune": "prune needs a trained model",
    "prune run=last analysis=heads": "prune cuts what analysis=taylor finds",
}


@pytest.mark.parametrize("words", NONSENSE)
def test_nonsense_is_refused(words: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) in (2, 4)
    assert NONSENSE[words] in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_nonsense_is_refused_before_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from vitexp.cli import main\n"
        f"codes = [main(words.split()) for words in {list(NONSENSE)!r}]\n"
        "sys.exit('torch' in sys.modules or 0 in codes)"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=tmp_path, check=True)
