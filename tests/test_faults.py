"""Faults that no other file injects, and that `tests/faults.md`, which lists them all, names only tests that exist."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vitexp.checkpoint.safe_io import newest
from vitexp.cli import main
from vitexp.config.compose import compose
from vitexp.errors import CheckpointError, ConfigError
from vitexp.run.folder import create, find, open_run
from vitexp.verb import train

TESTS = Path(__file__).parent
SMALL = ["model=vit_nano", "model.depth=1", "data=fake", "bs=32", "epochs=1", "logger=none", "quiet=true"]


def _rows() -> list[list[str]]:
    lines = (TESTS / "faults.md").read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if re.match(r"\| F\d", line)]


def test_every_fault_of_the_catalogue_has_a_row_whose_tests_exist() -> None:
    rows = _rows()
    assert [row[0] for row in rows] == [f"F{number}" for number in range(1, 53)]
    for number, _, _, holds, tests in rows:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", tests)
        assert holds in ("yes", "documented") or holds.startswith("in part: ")
        assert named or holds == "documented", number
        for file, test in named:
            assert f"def {test}(" in (TESTS / file).read_text(), f"{number}: {file}::{test}"


def test_the_docs_count_the_rows() -> None:
    rows = _rows()
    said = re.search(r"(\d+) of (\d+) faults", (TESTS.parent / "docs/resume.md").read_text())
    assert said is not None
    assert [int(number) for number in said.groups()] == [sum(row[3] == "yes" for row in rows), len(rows)]


@pytest.mark.parametrize("phase", ["data", "test"])
def test_a_signal_outside_training_is_obeyed_too(
    phase: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def stop(*arguments: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    place = "vitexp.verb.train.build.build_data" if phase == "data" else "pytorch_lightning.Trainer.test"
    monkeypatch.setattr(place, stop)
    assert main(SMALL) == 143
    assert ("vitexp resume" in capsys.readouterr().err) == (phase == "test"), "only where there is a run to continue"
    if phase == "data":
        assert not list(tmp_path.iterdir())
    else:
        run = find("last", tmp_path / "outputs")
        assert run.state == "interrupted"
        assert "test/top1" not in run.record.get("metrics", {})


def test_two_runs_of_one_second_have_a_folder_each(tmp_path: Path) -> None:
    cfg = compose([*SMALL, f"outputs={tmp_path / 'outputs'}", "name=same"])
    runs = [create(cfg, argv=[], overrides=[]) for _ in range(5)]
    assert len({run.path for run in runs}) == 5


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    run = create(compose([*SMALL, f"outputs={tmp_path / 'outputs'}"]), argv=[], overrides=[])
    with pytest.raises(ConfigError, match=f"in use by process {os.getpid()} on "):
        open_run(run.path).acquire()
    run.release()
    again = open_run(run.path)
    again.acquire()
    again.release()


def test_outputs_that_are_a_file_are_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "outputs").write_text("mine")
    assert main([*SMALL, f"outputs={tmp_path / 'outputs'}"]) == 2
    assert "is not a folder; choose outputs=<folder>" in capsys.readouterr().err
    assert (tmp_path / "outputs").read_text() == "mine"


def test_a_link_in_a_run_folder_is_not_written_through(tmp_path: Path) -> None:
    run = create(compose([*SMALL, f"outputs={tmp_path / 'outputs'}"]), argv=[], overrides=[])
    run.release()
    (tmp_path / "mine").write_text("precious")
    (run.path / "metrics.csv").symlink_to(tmp_path / "mine")
    with pytest.raises(CheckpointError, match=r"metrics\.csv is a link"):
        open_run(run.path).acquire()
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM])
def test_what_the_system_has_run_out_of_is_exit_6(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(command: object) -> None:
        raise OSError(number, os.strerror(number), "place")

    monkeypatch.setattr(train, "train", fail)
    assert main(SMALL) == 6
    message = capsys.readouterr().err
    assert os.strerror(number) in message
    assert "Traceback" not in message


@pytest.mark.slow
def test_a_job_of_a_sweep_is_the_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing leaks from one job into the next: the second of a sweep has the weights of the same run by itself."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    assert main(["-m", *SMALL, "seed=0,1", "slots=1"]) == 0
    assert main([*SMALL, "seed=1"]) == 0
    (job,) = (tmp_path / "outputs" / "sweeps").glob("*/1-seed=1")
    first, second = (load_file(path / "weights.safetensors") for path in (job, tmp_path / "outputs" / "last"))
    assert torch.get_num_threads() == threads
    assert all(torch.equal(first[name], second[name]) for name in second)


@pytest.mark.slow
def test_the_death_of_a_process_of_several_ends_the_run(tmp_path: Path) -> None:
    """SIGKILL to the second process: the first ends by itself, not with 0, and the run can be resumed."""
    words = [
        *SMALL[:4],
        "bs=16",
        "epochs=500",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        "trainer.strategy=ddp",
        "trainer.checkpoint_seconds=0",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "vitexp", *words, "logger=none"],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = tmp_path / "outputs" / "last" / "metrics.csv"
    deadline = time.monotonic() + 200
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 3) and time.monotonic() < deadline:
        time.sleep(0.2)
    (second,) = _children(process.pid)
    os.kill(second, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 6, errors
    assert "no longer answers" in errors
    run = find("last", tmp_path / "outputs")
    assert run.state == "failed"
    found = newest(run.checkpoints)
    assert found is not None, "the run can be resumed"
    assert found[1]["step"] > 0


def _children(parent: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
