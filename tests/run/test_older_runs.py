"""Runs that an earlier vitexp (90aa744, before its modules moved) has left are evaluated, reported and gone on with.

`older/run` is the folder of `vitexp model.dim=16 model.num_heads=2 augment=strong epochs=1 trainer.ema=0.9 name=old
logger=none`; the other files are configurations of the same version whose classes stand elsewhere now.
"""

import json
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from vitexp.build import make
from vitexp.cli import main
from vitexp.config.compose import register
from vitexp.config.stored import stored
from vitexp.config.targets import is_known, targets

OLDER = Path(__file__).parent / "older"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the older run, in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(OLDER / "run", tmp_path / "outputs/2026-12-01/older"))


def test_an_older_run_is_evaluated_to_its_own_accuracy(run: Path) -> None:
    assert main(["evaluate", f"run={run}", "quiet=true"]) == 0
    evaluated = json.loads((run / "evaluations/digits-8/evaluation.json").read_text())["metrics"]
    trained = json.loads((run / "run.json").read_text())["metrics"]
    assert evaluated["test/top1"] == trained["test/top1"]
    assert evaluated["test/loss"] == pytest.approx(trained["test/loss"], abs=1e-6)


def test_an_older_run_has_a_page(run: Path) -> None:
    assert main(["report", f"run={run}"]) == 0
    page = (run / "report.html").read_text()
    assert "at commit 90aa744" in page
    assert "test/top1" in page


def test_an_older_run_is_extended_by_an_epoch(run: Path) -> None:
    assert main(["resume", f"run={run}", "epochs=2", "quiet=true"]) == 0
    record = json.loads((run / "run.json").read_text())
    assert (record["state"], record["epochs"]) == ("done", 2)


@pytest.mark.parametrize("name", ["detr", "navit", "swinv2_multi_scale"])
def test_older_configurations_name_what_is_there(name: str) -> None:
    register()
    cfg = stored((OLDER / f"{name}.yaml").read_text(), name)
    unknown = [target for target in targets(OmegaConf.to_container(cfg, resolve=True)) if not is_known(target)]
    assert not unknown
    make(cfg.data.module)
