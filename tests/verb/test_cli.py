"""The installed command, in each of its verbs, on small data; and what a user sees when something goes wrong."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vitexp.callback.step_keys import StepKeys
from vitexp.cli import main
from vitexp.run.folder import find

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["data=fake", "data.sizes=[96,32,32]", "epochs=2", "bs=16", "logger=none"]


@pytest.fixture(autouse=True)
def _signals():
    """`main` installs its handlers; give the test runner its own back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one run has been trained."""
    folder = tmp_path_factory.mktemp("trained")
    here = Path.cwd()
    os.chdir(folder)
    try:
        with (folder / "screen.txt").open("w") as screen, redirect_stdout(screen):
            assert main([*SMALL, "logger=tensorboard", "schedule.warmup=2 steps"]) == 0
    finally:
        os.chdir(here)
    return folder


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_what_the_docs_promise(trained: Path) -> None:
    run = trained / "outputs" / "last"
    table = (ROOT / "docs/runs.md").read_text().split("## The run folder")[1].split("## ")[0]
    left_by = {
        name: when
        for names, when in re.findall(r"^\| (`[^|]+`) \| ([^|]+) \|", table, re.M)
        for name in names.split(", ")
    }
    promised = {name.strip("`").rstrip("/") for name, when in left_by.items() if when == "every run"}
    named = {name.strip("`").rstrip("/") for name in left_by}
    found = [path.relative_to(run) for path in run.rglob("*") if path.is_file() and path.name[0] != "."]
    assert len(promised) > 15
    assert promised <= {str(path) for path in found}
    left_out = {str(path) for path in found if str(path) not in named and path.parts[0] not in named}
    assert not left_out, "the table says nothing of these"
    record = json.loads((run / "run.json").read_text())
    assert record["state"] == "done"
    assert record["metrics"]["test/top1"] >= 0
    assert record["packages"]["torch"]
    assert record["argv"][:2] == ["vitexp", "data=fake"]
    assert record["seed"] == 0
    assert record["git_commit"] is None or len(record["git_commit"]) == 40
    assert record["git_dirty"] in (None, True, False)
    assert record["hardware"]["cores"] >= 1
    assert "thread" in record["hardware"]["device"] or "×" in record["hardware"]["device"]
    assert "ended: done" in (run / "log.txt").read_text()
    assert record["classes"][0] == "0" or len(record["classes"]) == 10
    assert {"last.ckpt", "best.ckpt", "manifest.json"} <= {path.name for path in (run / "checkpoints").iterdir()}
    assert (run / "overrides.txt").read_text().splitlines()[3] == "data.batch_size=16"
    assert "${" not in (run / "config.yaml").read_text()


def test_the_header_says_what_is_about_to_happen(trained: Path) -> None:
    text = (trained / "screen.txt").read_text()
    run = find("last", trained / "outputs")
    shown = {key: value.strip() for key, _, value in (line.partition(" ") for line in text.splitlines()) if key}
    whole = sum(tensor.numel() for tensor in load_file(run.path / "weights.safetensors").values())
    assert shown["run"] == run.name
    assert shown["device"].startswith(run.record["hardware"]["device"])
    assert shown["device"].endswith("32-true") or "mixed" in shown["device"]
    assert re.fullmatch(r"([\d,]+) parameters, [\d.]+ [MG]MAC an image", shown["model"])
    assert int(shown["model"].split()[0].replace(",", "")) <= whole, "buffers are no parameters"
    assert shown["images"] == "train 96, val 32, test 32"
    assert shown["batch"] == "16"
    assert shown["schedule"] == "cosine, peak 0.004, 2 of 12 steps warm-up, 2 epochs"
    assert "data.batch_size=16 (bs=)" in shown["settings"]
    assert "schedule.warmup=2 steps" in shown["settings"]


def test_metrics_have_rising_steps(trained: Path) -> None:
    rows = read_rows(trained / "outputs" / "last" / "metrics.csv")
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(set(steps))
    assert steps[-1] == 12
    assert rows[-1]["test/top1"], "the test is in the row of the last step"
    assert rows[-1]["epoch"] == "1", "of two epochs, from 0"


def test_evaluate_repeats_the_test(trained: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(trained)
    before = find("last", Path("outputs")).record["metrics"]
    assert main(["evaluate", "run=last"]) == 0
    (file,) = (trained / "outputs" / "last" / "evaluations").glob("*/evaluation.json")
    after = json.loads(file.read_text())
    assert after["metrics"]["test/top1"] == before["test/top1"]
    assert after["metrics"]["test/loss"] == pytest.approx(before["test/loss"], rel=1e-6)
    assert len(after["per_class"]) == 10
    assert "test/top1" in capsys.readouterr().out


def test_evaluate_elsewhere_needs_the_same_classes(trained: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(trained)
    assert main(["evaluate", "run=last", "data=fake", "data.pattern=1"]) == 0
    assert main(["evaluate", "run=last", "data=digits"]) == 2
    assert "was trained on" in capsys.readouterr().err


def test_evaluate_refuses_what_belongs_to_the_run(trained: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(trained)
    assert main(["evaluate", "run=last", "model=vit_ti16"]) == 2
    assert "takes model from run" in capsys.readouterr().err
    assert main(["evaluate"]) == 2
    assert "run=last" in capsys.readouterr().err


def test_predict_labels_files_folders_and_globs(trained: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(trained)
    folder = trained / "photos"
    folder.mkdir(exist_ok=True)
    for index in range(3):
        Image.new("RGB", (40, 50), (index * 80, 10, 10)).save(folder / f"{index}.png")
    for image, count in (("photos/1.png", 1), ("photos", 3), ("photos/*.png", 3)):
        assert main(["predict", "run=last", f"image={image}"]) == 0
        rows = read_rows(trained / "outputs" / "last" / "predictions.csv")
        assert len(rows) == count
        shares = [float(rows[0][f"probability{rank}"]) for rank in range(1, 6)]
        assert shares == sorted(shares, reverse=True)
    assert main(["predict", "run=last", "image=nothing.jpg"]) == 3
    assert "matches no image" in capsys.readouterr().err


def test_resume_of_a_finished_run_touches_nothing(trained: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(trained)
    run = trained / "outputs" / "last"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    assert main(["resume"]) == 0
    assert "already complete" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_list_shows_runs_and_options(trained: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(trained)
    assert main(["list", "runs"]) == 0
    assert "vit_nano" in capsys.readouterr().out
    assert main(["list", "models"]) == 0
    assert "vit_ti16" in capsys.readouterr().out
    assert main(["list", "nonsense"]) == 2


def test_a_name_or_its_prefix_finds_the_run(trained: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(trained)
    name = find("last", Path("outputs")).name
    assert find(name[:9], Path("outputs")).name == name
    assert main(["evaluate", "run=nosuchrun"]) == 4
    assert "matches no run" in capsys.readouterr().err


class Killed(BaseException):
    """As sudden as SIGKILL, as far as saving goes."""


def train_killed_at(step: int, monkeypatch, arguments: list[str]) -> None:
    def die(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == step:
            raise Killed
        original(self, trainer, pl_module, batch, batch_idx)

    original = StepKeys.on_train_batch_start
    with monkeypatch.context() as patch:
        patch.setattr(StepKeys, "on_train_batch_start", die)
        with pytest.raises(Killed):
            main(arguments)


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param([], id="plain", marks=pytest.mark.slow),
        pytest.param(["trainer.ema=0.9"], id="average"),
        pytest.param(["trainer.accumulate=2", "augment=strong"], id="cut and mixed", marks=pytest.mark.slow),
        pytest.param(["attention=reattention"], id="reattention", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_resumes_to_the_same_bits(extra: list[str], tmp_path: Path, monkeypatch) -> None:
    arguments = [*SMALL, "quiet=true", "trainer.checkpoint_seconds=0", "trainer.log_every=1", *extra]
    outcomes = []
    for name, kills in (("whole", []), ("killed", [2, 7])):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        if not kills:
            assert main(arguments) == 0
        for index, step in enumerate(kills):
            train_killed_at(step, monkeypatch, arguments if index == 0 else ["resume"])
        if kills:
            assert find("last", Path("outputs")).state in ("failed", "interrupted")
            assert main(["resume", "quiet=true"]) == 0
        run = find("last", Path("outputs"))
        content = {"weights": (run.path / "weights.safetensors").read_bytes().split(b"}", 1)[1][-4000:]}
        outcomes.append((content, (run.path / "metrics.csv").read_text(), run.record["metrics"]))
    assert outcomes[0] == outcomes[1]


def test_resume_refuses_a_changed_configuration(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    train_killed_at(3, monkeypatch, [*SMALL, "quiet=true", "trainer.checkpoint_seconds=0"])
    assert main(["resume", "bs=32"]) == 4
    message = capsys.readouterr().err
    assert "16" in message
    assert "32" in message


def test_a_sweep_leaves_a_table_of_means(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["-m", *SMALL, "epochs=1", "quiet=true", "seed=0,1"]) == 0
    assert "±" in capsys.readouterr().out
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    jobs = sorted(path.name for path in sweep.iterdir() if path.is_dir())
    assert jobs == ["0-seed=0", "1-seed=1"]
    rows = read_rows(sweep / "sweep.csv")
    assert [row["seed"] for row in rows] == ["0", "1"]
    assert "By setting" in (sweep / "report.html").read_text()
    assert all((sweep / job / "report.html").is_file() for job in jobs)
    assert main(["-m", *SMALL, "seed=1,0", "epochs=1"]) == 0
    assert "2 of 2 jobs are done" in capsys.readouterr().out, "the same jobs: nothing is run again"
    assert list((tmp_path / "outputs" / "sweeps").iterdir()) == [sweep]


def test_a_sweep_checks_every_value_before_the_first_job(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["-m", *SMALL, "lr=1e-3,abc"]) == 2
    assert "takes a number" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_diverging_run_stops_with_exit_5_and_keeps_the_good_checkpoint(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    from vitexp.task.classify import Classify

    step = Classify.training_step

    def poisoned(self, batch, batch_idx):
        images, labels = batch
        return step(self, (images * float("nan") if self.global_step == 4 else images, labels), batch_idx)

    monkeypatch.setattr(Classify, "training_step", poisoned)
    assert main([*SMALL, "trainer.checkpoint_seconds=0"]) == 5
    assert "step 5" in capsys.readouterr().err
    run = find("last", Path("outputs"))
    assert run.record["state"] == "failed"
    saved = torch.load(run.checkpoints / "last.ckpt", weights_only=True)
    assert all(tensor.isfinite().all() for tensor in saved["state_dict"].values())
    assert saved["vitexp"]["step"] == 4


def test_absent_data_says_where_to_put_it(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data=imagenet", f"data.root={tmp_path}/none", "model=vit_ti16"]) == 3
    assert str(tmp_path) in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_parts_that_do_not_go_together_are_one_line_and_exit_2(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "model.num_heads=5"]) == 2
    assert "num_heads=5" in capsys.readouterr().err
    assert main([*SMALL, "model=vit_ti16", "size=33"]) == 2
    assert not list(tmp_path.iterdir())


def test_a_strangers_target_is_refused(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "schedule._target_=os.system"]) == 2
    assert "is refused" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_does_not_fit_is_exit_4(trained: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    weights = trained / "outputs" / "last" / "weights.safetensors"
    assert main([*SMALL, "model.dim=32", f"checkpoint={weights}"]) == 4
    assert "does not fit" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_fine_tuning_with_a_frozen_body(trained: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights = trained / "outputs" / "last" / "weights.safetensors"
    assert main([*SMALL, "regime=head", "epochs=1", f"checkpoint={weights}", "quiet=true"]) == 0
    before, after = load_file(weights), load_file(tmp_path / "outputs" / "last" / "weights.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head.weight", "head.bias"}


def test_unwritable_outputs_are_exit_6(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "outputs=/proc/runs"]) == 6
    assert "choose outputs=" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_saves_and_says_how_to_go_on(number: int, code: int, tmp_path: Path) -> None:
    arguments = ["data=fake", "epochs=500", "logger=none"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "vitexp", *arguments], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "outputs" / "last" / "metrics.csv"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") > 1) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "vitexp resume" in errors
    run = find("last", tmp_path / "outputs")
    assert run.record["state"] == "interrupted"
    assert (run.checkpoints / "last.ckpt").exists()


def test_notebook_surface(trained: Path, monkeypatch) -> None:
    import vitexp

    monkeypatch.chdir(trained)
    model = vitexp.build_model(vitexp.compose(["data=fake", "model.depth=2"]))
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert vitexp.load_run("last")(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
