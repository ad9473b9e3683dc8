"""What the command says, and with which exit code, when nothing is trained or something goes wrong."""

import signal
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from vitexp import build, cli
from vitexp.cli import main
from vitexp.config.command import Command, call
from vitexp.config.compose import compose
from vitexp.errors import ConfigError, Interrupted
from vitexp.task.classify import Classify

SMALL = ["data=fake", "data.sizes=[32,16,16]", "epochs=1", "bs=16", "logger=none"]


@pytest.fixture(scope="module")
def small() -> DictConfig:
    """Composed once."""
    return compose(SMALL)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An empty folder; and `main` installs its handlers, so give the test runner its own back."""
    monkeypatch.chdir(tmp_path)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_quiet_runs_say_nothing_and_leave_everything(tmp_path: Path, capsys, monkeypatch) -> None:
    made = build.build_model

    def noting(cfg: DictConfig, *, notes: list[str], **more: bool) -> torch.nn.Module:
        notes.append("position: 7x7 resized to 8x8")
        return made(cfg, notes=notes, **more)

    monkeypatch.setattr(build, "build_model", noting)
    assert main([*SMALL, "quiet=true"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ""
    assert (tmp_path / "outputs" / "last" / "weights.safetensors").exists()
    assert "7x7 resized to 8x8" in (tmp_path / "outputs" / "last" / "log.txt").read_text()
    assert main(["evaluate", "run=last", "quiet=true"]) == 0
    assert capsys.readouterr().out == ""


def test_folding_norms_changes_no_result(tmp_path: Path) -> None:
    """`fuse=true` is the default of evaluate; the stem of vit_nano has norms to fold."""
    logits: dict[str, torch.Tensor] = {}
    assert main([*SMALL, "quiet=true"]) == 0
    update = Classify._update
    for fuse in ("true", "false"):
        with pytest.MonkeyPatch.context() as patch:

            def spy(self: Classify, metrics, batch, fuse=fuse) -> None:
                update(self, metrics, batch)
                norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in self.model.modules())
                assert (norms == 0) == (fuse == "true")
                logits[fuse] = self.logits.clone()

            patch.setattr(Classify, "_update", spy)
            assert main(["evaluate", "run=last", f"fuse={fuse}", "quiet=true"]) == 0
    torch.testing.assert_close(logits["true"], logits["false"], rtol=1e-4, atol=1e-5)


def test_a_mistake_is_one_line_and_a_traceback_only_when_asked_for(monkeypatch, capsys) -> None:
    assert main(["modle=vit_nano"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert main(["modle=vit_nano"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_with_a_failed_job_finishes_the_others_and_exits_7(tmp_path: Path, capsys) -> None:
    """0 batches an epoch is known only once the data is read."""
    assert main(["-m", *SMALL, "quiet=true", "data.sizes=[32,16,16],[8,16,16]"]) == 7
    captured = capsys.readouterr()
    assert "1 of 2 jobs failed" in captured.err
    assert "failed" in captured.out
    (table,) = (tmp_path / "outputs" / "sweeps").glob("*/sweep.csv")
    assert {line.count("failed") for line in table.read_text().splitlines()[1:]} == {0, 1}


def test_what_vitexp_did_not_foresee_is_a_bug_and_exit_1(monkeypatch, capsys) -> None:
    def broken(arguments):
        raise KeyError("nobody thought of this")

    monkeypatch.setattr(cli, "dispatch", broken)
    assert main([]) == 1
    assert "a bug in vitexp" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trainer.devices": 0}, "cannot work here"),
        ({"trainer.devices": 3, "trainer.accelerator": "cpu"}, "must be a multiple"),
        ({"trainer.accelerator": "tpu"}, "use auto"),
        ({"trainer.accelerator": "cpu", "precision": "16"}, "needs a GPU"),
        ({"schedule.warmup": "abc"}, "cannot be read"),
        ({"schedule.warmup": "5 epochs"}, "the run has only 2"),
        ({"data.batch_size": 64}, "use data.batch_size=32 or less"),
        ({"optimizer.betas": [2.0, 0.9]}, "do not take their values"),
        ({"optimizer.lr": None}, "do not take optimizer.lr=null"),
    ],
    ids=str,
)
def test_what_cannot_train_is_found_before_anything_is_written(
    changes: dict[str, object], said: str, small: DictConfig, tmp_path: Path
) -> None:
    cfg = small.copy()
    for key, value in changes.items():
        OmegaConf.update(cfg, key, value)
    with pytest.raises(ConfigError, match=said):
        call("train", Command(cfg, [], []))
    assert not list(tmp_path.iterdir())


def test_a_logger_that_is_not_installed_is_exit_2_and_says_what_to_install(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main([*SMALL, "logger=wandb"]) == 2
    said = "vitexp: logger=wandb needs wandb beside vitexp; type: pip install 'vitexp[wandb]'\n"
    assert capsys.readouterr().err == said
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_here_is_exit_2(tmp_path: Path, capsys) -> None:
    assert main([*SMALL, "trainer.accelerator=gpu"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("verb", "in_run", "resumes"),
    [("train", True, True), ("train", False, False), ("benchmark", False, False), ("evaluate", True, False)],
)
def test_only_what_can_be_resumed_is_said_to_be(verb: str, in_run: bool, resumes: bool, monkeypatch, capsys) -> None:
    def stopped(arguments):
        interrupted = Interrupted(signal.SIGTERM)
        interrupted.in_run = in_run
        raise interrupted

    monkeypatch.setattr(cli, "dispatch", stopped)
    assert main([verb, "seed=1"]) == 143
    assert ("vitexp resume" in capsys.readouterr().err) == resumes


@pytest.mark.parametrize("rank", ["0", "1"])
def test_an_error_on_top_of_an_interrupt_is_no_bug_and_one_process_says_so(rank: str, monkeypatch, capsys) -> None:
    def stopped(arguments):
        raise SystemError("returned a result with an exception set") from Interrupted(signal.SIGTERM)

    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr(cli, "follow_first", lambda: None)
    monkeypatch.setattr(cli, "dispatch", stopped)
    assert main([]) == 143
    said = capsys.readouterr().err
    assert "bug" not in said
    assert ("stopped by SIGTERM" in said) == (rank == "0")


def test_too_little_memory_says_what_to_lower(monkeypatch, capsys) -> None:
    def hungry(self, batch, batch_idx):
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")

    monkeypatch.setattr(Classify, "training_step", hungry)
    assert main([*SMALL, "quiet=true"]) == 6
    message = capsys.readouterr().err
    assert "trainer.accumulate=2" in message
    assert "lower bs=" in message


def test_a_loss_for_independent_classes_trains(tmp_path: Path) -> None:
    assert main([*SMALL, "task.loss=sigmoid", "augment=strong", "augment.off_epochs=1", "quiet=true"]) == 0
    assert (tmp_path / "outputs" / "last" / "weights.safetensors").exists()


def test_hydra_tells_what_it_found(capsys) -> None:
    assert main(["--info", "defaults"]) == 0
    out = capsys.readouterr().out
    assert "model/vit_nano" in out


def test_tab_completes_options_behind_a_verb(monkeypatch, capsys) -> None:
    line = "vitexp evaluate model=vit_na"
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    main(["-sc", "query=bash"])
    assert "model=vit_nano" in capsys.readouterr().out.split()
