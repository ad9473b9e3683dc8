"""P7: a run that goes on with another number of processes sees the same images at the same steps."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.resume.toy import FILES, TOY, Death, images, in_place, session, steps
from vitexp.run.folder import find

# No dropout, which each process draws for itself, and no batch norm, which sees the images of its process.
WORDS = [
    *("model=vit_ti16", "model.dim=16", "model.depth=2", "model.num_heads=2", "model.dropout=0.0", "size=8"),
    *[word for word in TOY if not word.startswith(("model", "size"))],
    *FILES,
    "trainer.accelerator=cpu",
]
RANKS = {
    1: ["trainer.devices=1", "trainer.strategy=auto"],
    2: ["trainer.devices=2", "trainer.strategy=ddp"],
}
ALLOW = "resume.allow=[trainer.devices,trainer.strategy]"


def command(place: Path, *words: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "vitexp", *words],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(place: Path) -> list[dict[str, float]]:
    text = (find("last", place / "outputs").path / "metrics.csv").read_text().splitlines()
    found = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(text)]
    return [{name: value for name, value in row.items() if not name.endswith("_per_s")} for row in found]


@pytest.mark.slow
def test_another_number_of_processes_sees_the_same_images(tmp_path: Path) -> None:
    """Killed in the second epoch and gone on with by two processes, then extended by one: each step has its loss."""
    root = f"data.root={images(tmp_path / 'images')}"
    whole, changed = tmp_path / "whole", tmp_path / "changed"
    for place in (whole, changed):
        in_place(place, lambda: session([*WORDS, root, *RANKS[1]], Death("on_train_batch_start", 6)))
    command(whole, "resume")
    command(changed, "resume", *RANKS[2], ALLOW)
    for place in (whole, changed):
        command(place, "resume", "epochs=3", *(RANKS[1] if place == changed else []), ALLOW)
    assert steps(changed) == steps(whole)
    for one, two in zip(rows(whole), rows(changed), strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            assert two[name] == pytest.approx(value, rel=1e-5, abs=1e-7), (one["step"], name)
    assert len(find("last", changed / "outputs").record["changed"]) == 4
