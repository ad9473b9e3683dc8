"""Adapters from the command line: trained, listed, evaluated, joined, extended, refused, and resumed."""

import csv
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from vitexp.callback.step_keys import StepKeys
from vitexp.checkpoint.adapter import read_adapter, write_adapter
from vitexp.cli import main
from vitexp.notebook import load_run
from vitexp.run.folder import find

SMALL = ["model=vit_nano", "model.pool=token", "model.depth=2", "data=fake", "data.sizes=[48,16,32]", "bs=16"]
QUIET = ["epochs=1", "logger=none", "quiet=true"]
TUNE = [*SMALL, *QUIET, "checkpoint=base.safetensors"]
MASKED = [*TUNE, "regime=memory_masked", "regime.num_tokens=2", "lr=0.05"]


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """`main` installs its handlers; give the test runner its own back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module", autouse=True)
def _no_pictures() -> Iterator[None]:
    """Half the time of a small run is its pictures, which have tests of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitexp.run.fit._draw", lambda *parts: None)
        patch.setattr("vitexp.callback.pictures.Pictures.draw", lambda *parts, **options: [])
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained base and two tasks of masked memory on it."""
    folder, here, threads = tmp_path_factory.mktemp("tasks"), Path.cwd(), torch.get_num_threads()
    os.chdir(folder)
    torch.set_num_threads(1)
    try:
        assert main([*SMALL, *QUIET]) == 0
        os.replace("outputs/last/weights.safetensors", "base.safetensors")
        for name, pattern in (("one", 1), ("two", 2)):
            assert main([*MASKED, f"name={name}", f"data.pattern={pattern}", "data.num_classes=7"]) == 0
    finally:
        os.chdir(here)
        torch.set_num_threads(threads)
    return folder


def run_named(name: str) -> Path:
    (path,) = Path("outputs").glob(f"*/*-{name}-*")
    return path


def test_an_adapter_holds_what_trained_and_says_what_it_is(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    run = run_named("one")
    assert not (run / "weights.safetensors").exists()
    adapter = read_adapter(run)
    parts = {"class_token", "memory", "head.weight", "head.bias"}
    assert set(adapter.tensors) == {f"tasks.0.{part}" for part in parts}
    assert adapter.path.stat().st_size < 20_000
    assert adapter.about["regime"] == "memory_masked"
    assert adapter.about["model"] == "vit_nano"
    assert adapter.about["image_size"] == 32
    assert len(adapter.about["classes"]) == 7
    assert "test/top1" in adapter.about["metrics"]
    with safe_open(run / "adapter.safetensors", framework="pt") as file:
        assert len(file.metadata()["base"]) == 66


def test_checkpoints_leave_the_base_out(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for name in ("last", "best"):
        content = torch.load(run_named("one") / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert len(content["state_dict"]) == 4
        assert content["base"] == read_adapter(run_named("one")).about["base"]


def slow(value: object) -> object:
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "regime", ["memory", "lora", slow("memory_masked"), slow("class_token"), slow("vpt"), slow("bias")]
)
def test_evaluate_repeats_the_test(regime: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the adapter over the base, and from the best checkpoint, which is another file."""
    monkeypatch.chdir(tmp_path)
    os.symlink(place / "base.safetensors", "base.safetensors")
    assert main([*TUNE, f"regime={regime}", "data.num_classes=4", "select=best"]) == 0
    run = find("last", Path("outputs"))
    assert (run.path / "weights.safetensors").exists() == (regime in ("class_token", "bias"))
    before = run.record["metrics"]["test/loss"]
    for options in ([], ["select=last"]):
        assert main(["evaluate", "run=last", "quiet=true", *options]) == 0
        (file,) = run.path.glob("evaluations/*/evaluation.json")
        assert json.loads(file.read_text())["metrics"]["test/loss"] == pytest.approx(before, rel=1e-4)
    model = load_run("last")
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 4)


def test_another_base_is_refused(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, *QUIET, "seed=1"]) == 0
    other = tmp_path / "outputs" / "last" / "weights.safetensors"
    monkeypatch.chdir(place)
    one = run_named("one")
    assert main(["evaluate", f"run={one}", f"checkpoint={other}"]) == 4
    assert "fingerprint" in capsys.readouterr().err
    assert main(["concat", f"adapters=[{one}]", f"checkpoint={other}"]) == 4
    assert "fingerprint" in capsys.readouterr().err


def test_tasks_join_and_answer_as_alone(place: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(place)
    one, two = run_named("one"), run_named("two")
    assert main(["concat", f"adapters=[{two},{one.name}]", "checkpoint=base.safetensors"]) == 0
    assert "2 tasks" in capsys.readouterr().out
    joined = find("last", Path("outputs"))
    assert main(["evaluate", "run=last"]) == 0
    assert "difference" in capsys.readouterr().out
    found = json.loads((joined.path / "evaluations" / "tasks.json").read_text())["metrics"]
    for name, path in (("fake", two), ("fake-2", one)):
        alone = find(str(path), Path("outputs")).record["metrics"]
        assert found[f"{name}/test/top1"] == alone["test/top1"]
        assert found[f"{name}/test/loss"] == pytest.approx(alone["test/loss"], rel=1e-4)
    Image.new("RGB", (40, 50), (80, 10, 10)).save("photo.png")
    assert main(["predict", "run=last", "image=photo.png", "quiet=true"]) == 0
    with (joined.path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["task"] for row in rows] == ["fake", "fake-2", "base"]
    assert main(["predict", f"run={one}", "image=photo.png", "quiet=true"]) == 0
    with (one / "predictions.csv").open(newline="") as file:
        (alone_row,) = csv.DictReader(file)
    assert rows[1]["class1"] == alone_row["class1"]
    assert float(rows[1]["probability1"]) == pytest.approx(float(alone_row["probability1"]), abs=2e-6)


def test_what_cannot_be_joined_is_refused(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Each difference by its name; the adapters are made from a real one."""
    monkeypatch.chdir(place)
    one = read_adapter(run_named("one"))
    cases = {
        "fingerprint": {"base": "0" * 64},
        "memory_norm": {"memory_norm": False},
        "mean": {"mean": [0.4, 0.5, 0.5]},
        "image_size": {"image_size": 64},
        "attention": {"attention": "cosine"},
        "regime=memory,": {"regime": "memory"},
        "twice": {},
    }
    for message, difference in cases.items():
        write_adapter(tmp_path / "other.safetensors", one.tensors, {**one.about, **difference})
        code = main(["concat", f"adapters=[{one.path},{tmp_path}/other.safetensors]", "checkpoint=base.safetensors"])
        assert code in (2, 4)
        assert message in capsys.readouterr().err
    assert main(["concat", "checkpoint=base.safetensors"]) == 2
    assert main(["concat", "adapters=[base.safetensors]", "checkpoint=base.safetensors"]) == 4
    assert "names no base" in capsys.readouterr().err


def test_extension_goes_on_top_of_earlier_tasks(place: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(place)
    one = run_named("one")
    arguments = [*TUNE, "regime=extension", f"regime.earlier=[{one}]", "name=three", "data.pattern=3"]
    assert main(arguments) == 0
    three = run_named("three")
    assert all(name.startswith("tasks.1.") for name in read_adapter(three).tensors)
    assert main(["evaluate", f"run={three}", "quiet=true"]) == 0
    assert main(["concat", f"adapters=[{one},{three}]", "checkpoint=base.safetensors", "quiet=true"]) == 0
    assert main(["evaluate", "run=last", "quiet=true"]) == 0
    assert main(["concat", f"adapters=[{three},{one}]", "checkpoint=base.safetensors"]) == 4
    assert "on top of" in capsys.readouterr().err
    assert main([*TUNE, "regime=extension"]) == 2
    assert "regime.earlier" in capsys.readouterr().err


def test_adapters_are_listed(place: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(place)
    assert main(["list", "adapters"]) == 0
    text = capsys.readouterr().out
    assert read_adapter(run_named("two")).about["base"][:12] in text
    assert "memory_masked" in text


class Killed(BaseException):
    """As sudden as SIGKILL, as far as saving goes."""


@pytest.mark.parametrize(
    "options",
    [
        ["regime=memory_masked", "trainer.ema=0.9"],
        slow(["regime=memory"]),
        slow(["regime=head"]),
        slow(["regime=lora"]),
    ],
    ids=str,
)
def test_a_killed_run_resumes_to_the_same_bits(
    options: list[str], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = StepKeys.on_train_batch_start

    def die(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 4:
            raise Killed
        original(self, trainer, pl_module, batch, batch_idx)

    arguments = [*TUNE, *options, "epochs=2", "trainer.checkpoint_seconds=0", "data.num_classes=3"]
    outcomes = []
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        os.symlink(place / "base.safetensors", "base.safetensors")
        if name == "killed":
            with monkeypatch.context() as patch:
                patch.setattr(StepKeys, "on_train_batch_start", die)
                with pytest.raises(Killed):
                    main(arguments)
            assert main(["resume", "quiet=true"]) == 0
        else:
            assert main(arguments) == 0
        run = find("last", Path("outputs"))
        outcomes.append((read_adapter(run.path).digest, run.record["metrics"]))
    assert outcomes[0] == outcomes[1]
