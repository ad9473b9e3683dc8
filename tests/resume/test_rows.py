"""P6: every model class, regime and task that conf/ offers has a row, and every row resumes to the same bits."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.resume.rows import MODELS, REGIMES, ROWS, WITHOUT_TRAINING
from tests.resume.toy import Death, bare, command, differing, in_place, outcome, session
from tests.verb.test_cli_detect import squares
from vitexp.config.compose import conf_dir, options
from vitexp.run.folder import find
from vitexp.verb.train import train

QUICK = ("logger=none", "quiet=true", "trainer.checkpoint_seconds=0", "trainer.log_every=1")
DEFAULT = ("vit", "memory_masked")  # the others are slow


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what rows start from: weights, an earlier task, images with boxes."""
    folder = tmp_path_factory.mktemp("bases")
    squares(folder / "boxes", counts={"train": 8, "val": 4, "test": 4})

    def prepare() -> None:
        words = [word for word in REGIMES["full"] if not word.startswith("checkpoint")]
        with bare():
            train(command([*words, *QUICK, "epochs=1"]))
            os.replace(find("last", Path("outputs")).path / "weights.safetensors", "base.safetensors")
            train(command([*REGIMES["memory_masked"], *QUICK, "epochs=1"]))
            os.replace(find("last", Path("outputs")).path / "adapter.safetensors", "earlier.safetensors")

    in_place(folder, prepare)
    shutil.rmtree(folder / "outputs")
    return folder


def option(group: str, name: str) -> dict[str, Any]:
    """An option's file, the files that it builds on beneath it; composing all of them would take a minute."""
    content: dict[str, Any] = yaml.safe_load((conf_dir() / group / f"{name}.yaml").read_text())
    bases = [base for base in content.get("defaults", ()) if isinstance(base, str) and base != "_self_"]
    tasks = [entry["override /task"] for entry in content.get("defaults", ()) if "override /task" in entry]
    merged = {"task": tasks[0] if tasks else None, "model": {}}
    for base in bases:
        below = option(group, base)
        merged = {"task": merged["task"] or below["task"], "model": {**below["model"], **merged["model"]}}
    merged["model"] = {**merged["model"], **(content.get("model") or {})}
    return merged


def test_every_model_class_regime_and_task_has_a_row() -> None:
    """A file in conf/ that no row covers fails here: a model without its row is not done."""

    def parts(model: str) -> set[str]:
        node = option("model", model)["model"]
        backbone = node.get("backbone")
        inner = backbone.get("_target_") if isinstance(backbone, dict) else None
        return {str(target) for target in (node["_target_"], inner) if target}

    def chosen(group: str) -> set[str]:
        words = [word for row in ROWS.values() for word in row if word.startswith(f"{group}=")]
        return {word.partition("=")[2] for word in words}

    covered = {part for model in chosen("model") for part in parts(model)}
    missing = {model: parts(model) - covered for model in options("model") if not parts(model) <= covered}
    assert not missing
    assert set(options("regime")) - WITHOUT_TRAINING == chosen("regime")
    tasks = {option("model", model)["task"] or "classify" for model in chosen("model")} | chosen("task")
    assert set(options("task")) <= tasks


@pytest.mark.parametrize("name", [n if n in DEFAULT else pytest.param(n, marks=pytest.mark.slow) for n in ROWS])
def test_a_row_resumes_to_the_same_bits(name: str, bases: Path, tmp_path: Path) -> None:
    words = [*ROWS[name], *QUICK]
    outcomes = []
    for kills in ((), (1, 2)):
        place = tmp_path / f"{len(kills)}"
        place.mkdir()
        for item in bases.iterdir():
            (place / item.name).symlink_to(item)
        for step in kills:
            death = Death("on_train_batch_start", step)
            assert not in_place(place, lambda d=death: session(words, d)), f"step {step} was not reached"
        assert in_place(place, lambda: session(words))
        outcomes.append(outcome(place))
    assert differing(*outcomes) == []


def test_rows_are_named_once() -> None:
    assert len(ROWS) == len({tuple(words) for words in ROWS.values()})
    assert not set(MODELS) & set(REGIMES)
