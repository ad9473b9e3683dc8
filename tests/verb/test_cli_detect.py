"""The command on boxes: train, evaluate, predict, kill and resume; overfitting real images."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.verb.test_cli import train_killed_at
from vitexp.cli import main
from vitexp.run.folder import find

TINY = [
    *("model=detr_nano", "data=coco_folder", "size=64", "bs=4", "data.num_workers=0", "logger=none"),
    *("model.dim=32", "model.num_queries=8", "model.depths=[1,2]", "model.mlp_dim=32"),
    *("model.backbone.dim=32", "model.backbone.stem.channels=[4,8,8,8,8]"),
]


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


def squares(root: Path, *, counts: dict[str, int]) -> Path:
    """Photographs of noise with a bright square each, of two classes by colour."""
    random = np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    for split, count in counts.items():
        (root / split).mkdir()
        content: dict[str, Any] = {"images": [], "annotations": []}
        content["categories"] = [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}]
        for number in range(count):
            pixels = random.integers(0, 60, (60, 80, 3), dtype=np.uint8)
            left, top, kind = int(random.integers(0, 50)), int(random.integers(0, 30)), number % 2
            pixels[top : top + 24, left : left + 24, 2 * kind] = 250
            Image.fromarray(pixels).save(root / split / f"{number}.png")
            content["images"].append({"id": number, "file_name": f"{number}.png", "width": 80, "height": 60})
            box = {"image_id": number, "category_id": kind + 1, "bbox": [left, top, 24, 24], "iscrowd": 0}
            content["annotations"].append({"id": number, **box})
        (root / "annotations" / f"{split}.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one detector has been trained for two epochs."""
    folder = tmp_path_factory.mktemp("trained")
    squares(folder / "boxes", counts={"train": 12, "val": 4, "test": 4})
    here = Path.cwd()
    os.chdir(folder)
    try:
        assert main([*TINY, "data.root=boxes", "epochs=2", "logger=tensorboard"]) == 0
    finally:
        os.chdir(here)
    return folder


def test_a_run_leaves_numbers_and_pictures(trained: Path) -> None:
    run = find("last", trained / "outputs")
    metrics = run.record["metrics"]
    assert {"test/map", "test/map_50", "test/mar_large", "val/map", "val/loss", "train/giou", "best/val/map"} <= set(
        metrics
    )
    plots = {path.stem for path in (run.path / "plots").iterdir()}
    assert {"batch", "detections", "attention", "queries", "precision", "loss"} <= plots
    assert run.record["classes"] == ["red", "blue"]
    page = (run.path / "report.html").read_text()
    for caption in (
        "Detections on test images",
        "Where the decoder looks for each object",
        "Where the boxes of each query",
    ):
        assert f'alt="{caption}' in page
    events = b"".join(path.read_bytes() for path in (run.path / "tensorboard").rglob("events*"))
    assert all(name in events for name in (b"detections", b"attention", b"queries", b"test/map_50"))


def test_evaluate_repeats_the_test(trained: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(trained)
    before = find("last", Path("outputs")).record["metrics"]
    assert main(["evaluate", "run=last"]) == 0
    (file,) = (trained / "outputs" / "last" / "evaluations").glob("*/evaluation.json")
    record = json.loads(file.read_text())
    for name in ("test/map", "test/map_50", "test/loss"):
        assert record["metrics"][name] == pytest.approx(before[name], rel=1e-4, abs=1e-6)
    assert set(record["per_class"]) == {"red", "blue"}
    assert "test/map_50" in capsys.readouterr().out


def test_predict_draws_and_writes_json(trained: Path, monkeypatch) -> None:
    from vitexp.verb import predict_boxes

    monkeypatch.chdir(trained)
    monkeypatch.setattr(predict_boxes, "THRESHOLD", 0.0)
    assert main(["predict", "run=last", "image=boxes/test/1.png"]) == 0
    out = trained / "outputs" / "last" / "predictions"
    (image,) = json.loads((out / "predictions.json").read_text())["images"]
    with Image.open(out / image["drawn"]) as drawn:
        assert drawn.size == (80, 60)
    assert len(image["detections"]) == 8
    first = image["detections"][0]
    assert first["class"] in ("red", "blue")
    assert len(first["box_xyxy"]) == 4
    scores = [found["score"] for found in image["detections"]]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.slow
def test_a_killed_detector_resumes_to_the_same_bits(tmp_path: Path, monkeypatch) -> None:
    root = squares(tmp_path / "boxes", counts={"train": 12, "val": 4, "test": 4})
    arguments = [*TINY, f"data.root={root}", "epochs=2", "quiet=true", "trainer.checkpoint_seconds=0"]
    arguments += ["trainer.log_every=1", "model.dropout=0.1", "task.denoising.groups=2"]
    outcomes = []
    for name, kills in (("whole", []), ("killed", [1, 4])):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        for index, number in enumerate(kills):
            train_killed_at(number, monkeypatch, arguments if index == 0 else ["resume"])
        assert main(["resume", "quiet=true"] if kills else arguments) == 0
        run = find("last", Path("outputs"))
        weights = (run.path / "weights.safetensors").read_bytes()[-4000:]
        outcomes.append((weights, (run.path / "metrics.csv").read_text(), run.record["metrics"]))
    assert outcomes[0] == outcomes[1]


@pytest.mark.slow
def test_two_processes_are_one_run(tmp_path: Path) -> None:
    """Five images to test on: the second process has a batch less, and nobody waits for it.

    A ViT without batch norm as the backbone: one sees each process's images, and losses differ by up to 5 %. Nor is
    there noise, of which each process draws its own.
    """
    root = squares(tmp_path / "boxes", counts={"train": 8, "val": 4, "test": 5})
    shared = [word for word in TINY if word != "model=detr_nano" and not word.startswith("model.backbone.")]
    shared += [
        "model=detr",
        "backbone=vit_ti16",
        "model.dropout=0.0",
        "model.attention.dropout=0.0",
        "model.num_heads=4",
    ]
    shared += ["task.denoising.groups=2", "task.denoising.box_noise=0.0", "task.denoising.label_noise=0.0"]
    shared += [f"data.root={root}", "epochs=2", "augment=none", "trainer.accelerator=cpu", "trainer.log_every=1"]
    records = []
    for folder, more in (("one", ["trainer.devices=1"]), ("two", ["trainer.devices=2", "trainer.strategy=ddp"])):
        (tmp_path / folder).mkdir()
        command = [sys.executable, "-m", "vitexp", *shared, *more]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=tmp_path / folder, env=environment, capture_output=True, timeout=600)
        assert done.returncode == 0, done.stderr.decode()
        (file,) = (tmp_path / folder / "outputs").glob("2*/*/run.json")
        records.append((json.loads(file.read_text()), (file.parent / "metrics.csv").read_text().splitlines()))
    (one, rows), (two, other_rows) = records
    assert two["state"] == "done"
    assert len(rows) == len(other_rows)
    assert set(one["metrics"]) == set(two["metrics"])
    assert {"train/loss", "train/denoising", "test/loss", "test/map"} <= set(one["metrics"])
    for name, value in one["metrics"].items():
        assert two["metrics"][name] == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=coco"], "use model=detr_r50"),
        (["model=detr_nano", "data=digits"], "has no boxes"),
        (["model=detr_nano", "augment=basic"], "leaves boxes behind"),
        (["augment=detection"], "needs boxes"),
    ],
)
def test_parts_that_do_not_go_together(arguments: list[str], message: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_eight_real_images_are_learnt_by_heart(data_root, tmp_path: Path, monkeypatch) -> None:
    """The first thing that shows a detector is right (facebookresearch/detr, issue 294)."""
    source = data_root("coco128") / "coco128"
    content = json.loads((source / "annotations" / "instances_train2017.json").read_text())
    content["images"] = content["images"][:8]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [item for item in content["annotations"] if item["image_id"] in kept]
    (tmp_path / "annotations").mkdir()
    for split in ("train", "val", "test"):
        (tmp_path / split).mkdir()
        for image in content["images"]:
            shutil.copy(source / "train2017" / image["file_name"], tmp_path / split)
        (tmp_path / "annotations" / f"{split}.json").write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    recipe = ["model=detr_nano", "data=coco_folder", "augment=none", "schedule=cosine", "lr=1e-3", "epochs=600"]
    assert main([*recipe, f"data.root={tmp_path}", "trainer.validate_every=100", "logger=none"]) == 0
    assert find("last", Path("outputs")).record["metrics"]["test/map_50"] > 0.9
