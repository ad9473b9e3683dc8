"""Packed images through the runner: trained, killed, resumed to the same bits, evaluated, labelled, exported."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from tests.verb.test_cli import read_rows, train_killed_at
from vitexp.cli import main
from vitexp.run.folder import find

SMALL = [
    "model=navit_nano",
    "model.depth=2",
    "data=fake",
    "data.sizes=[192,32,32]",
    "epochs=2",
    "bs=16",
    "logger=none",
    "quiet=true",
]
CLOCKED = ("train/tokens_per_s", "train/images_per_s")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one run has been trained."""
    folder, here = tmp_path_factory.mktemp("trained"), Path.cwd()
    os.chdir(folder)
    try:
        assert main([*SMALL, "data.packing.drop.kind=beta", "task.loss=sigmoid"]) == 0
    finally:
        os.chdir(here)
    return folder


def test_a_run_says_how_full_and_how_fast(trained: Path) -> None:
    run = trained / "outputs" / "last"
    rows = [row for row in read_rows(run / "metrics.csv") if row["train/tokens"]]
    assert len(rows) == 2
    assert 0 <= float(rows[-1]["train/padding_rate"]) < 0.5
    assert float(rows[-1]["train/tokens_per_s"]) > float(rows[-1]["train/images_per_s"]) > 0
    assert float(rows[-1]["train/tokens"]) > float(rows[0]["train/tokens"]) > 192
    assert float(rows[-1]["train/shrunk"]) == 0
    assert {"batch", "confusion", "loss"} <= {path.stem for path in (run / "plots").iterdir()}


def test_evaluate_and_predict(trained: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(trained)
    before = find("last", Path("outputs")).record["metrics"]
    assert main(["evaluate", "run=last", "quiet=true"]) == 0
    (file,) = (trained / "outputs" / "last" / "evaluations").glob("*/evaluation.json")
    assert json.loads(file.read_text())["metrics"]["test/top1"] == before["test/top1"]
    (trained / "photos").mkdir()
    for number, size in enumerate([(40, 50), (90, 20), (32, 32)]):
        Image.new("RGB", size, (80 * number, 10, 10)).save(trained / "photos" / f"{number}.png")
    assert main(["predict", "run=last", "image=photos"]) == 0
    rows = read_rows(trained / "outputs" / "last" / "predictions.csv")
    assert [Path(row["image"]).name for row in rows] == ["0.png", "1.png", "2.png"]
    assert main(["export", "run=last", "to=timm"]) == 4
    assert "timm has no NaViT" in capsys.readouterr().err


def test_several_sizes_are_one_table(trained: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(trained)
    assert main(["evaluate", "run=last", "size=16,32,native", "quiet=false"]) == 0
    text = capsys.readouterr().out
    assert "tokens an image" in text
    (file,) = (trained / "outputs" / "last" / "evaluations").glob("*.sizes/sizes.csv")
    rows = read_rows(file)
    assert [(row["size"], float(row["tokens an image"])) for row in rows] == [("16", 16), ("32", 64), ("native", 64)]
    assert rows[1]["top1"] == rows[2]["top1"]
    assert main(["evaluate", "run=last", "size=16,big"]) == 2
    assert "size=big is no size" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["model=mobilevit_xxs", "data.sampler=multi_scale"],
        pytest.param(["model=mobilevit_xxs"], marks=pytest.mark.slow),
        pytest.param(["model=efficientvit_m0", "data.sampler=multi_scale"], marks=pytest.mark.slow),
        pytest.param(
            ["model=swinv2", "model.dim=24", "model.depths=[1,1]", "model.num_heads=[1,2]", "data.sampler=multi_scale"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=str,
)
def test_a_pyramid_at_several_sizes(words: list[str], tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["data=fake", "data.sizes=[32,8,8]", "epochs=1", "bs=8", "logger=none", "quiet=true"]
    assert main([*words, *small]) == 0
    assert main(["evaluate", "run=last", "size=24,32", "quiet=true"]) == 0
    (file,) = (tmp_path / "outputs" / "last" / "evaluations").glob("*.sizes/sizes.csv")
    assert [row["size"] for row in read_rows(file)] == ["24", "32"]
    assert main(["evaluate", "run=last", "size=native"]) == 2
    assert "use size=64,96" in capsys.readouterr().err


@pytest.mark.slow
def test_multi_scale_resumes_to_the_same_bits(tmp_path: Path, monkeypatch) -> None:
    arguments = ["model=navit_nano", *SMALL[1:], "data.sampler=multi_scale", "trainer.checkpoint_seconds=0"]
    outcomes = []
    for name, kills in (("whole", []), ("killed", [3])):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        if kills:
            train_killed_at(kills[0], monkeypatch, arguments)
        assert main(["resume", "quiet=true"] if kills else arguments) == 0
        outcomes.append((find("last", Path("outputs")).path / "weights.safetensors").read_bytes()[-4000:])
    assert outcomes[0] == outcomes[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "extra", [["trainer.accumulate=2", "data.packing.aspect=0.3"], ["augment.geometry=none"]], ids=["cut", "whole"]
)
def test_a_killed_run_resumes_to_the_same_bits(extra: list[str], tmp_path: Path, monkeypatch) -> None:
    arguments = [*SMALL, "trainer.checkpoint_seconds=0", "trainer.log_every=1", "data.packing.drop.kind=beta", *extra]
    outcomes = []
    for name, kills in (("whole", []), ("killed", [2, 5])):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        if not kills:
            assert main(arguments) == 0
        for index, step in enumerate(kills):
            train_killed_at(step, monkeypatch, arguments if index == 0 else ["resume"])
        if kills:
            assert main(["resume", "quiet=true"]) == 0
        run = find("last", Path("outputs"))
        rows = [{k: v for k, v in row.items() if k not in CLOCKED} for row in read_rows(run.path / "metrics.csv")]
        scores = {k: v for k, v in run.record["metrics"].items() if k not in CLOCKED}
        outcomes.append(((run.path / "weights.safetensors").read_bytes()[-4000:], rows, scores))
    assert outcomes[0] == outcomes[1]


def test_packs_need_a_model_that_takes_them(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data=fake", "data.sampler=packed"]) == 2
    assert "use model=navit_ti16, or data.sampler=fixed" in capsys.readouterr().err
    assert main(["data=fake", "data.sampler=multi_scale"]) == 2
    assert "model=vit_nano regime=full takes one" in capsys.readouterr().err
    assert main([*SMALL, "regime=head", "regime.cache=true", "augment=none"]) == 2
    assert not (tmp_path / "outputs").exists()
