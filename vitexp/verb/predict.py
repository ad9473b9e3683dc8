"""`vitexp predict run=last image=cat.jpg`: the five most likely classes of images, as a table and a CSV file.

A detector gives boxes instead: see `predict_boxes`.
"""

from glob import glob
from pathlib import Path
from typing import Any

import torch

from vitexp import build
from vitexp.checkpoint.read import read_classes
from vitexp.config.command import Command
from vitexp.data.file.image import SUFFIXES
from vitexp.errors import ConfigError, DataError
from vitexp.files.folder import Folder
from vitexp.report.screen import print_notes, show
from vitexp.report.table import predictions_table
from vitexp.verb.evaluate import open_for
from vitexp.verb.multitask import joined_run, predict_joined
from vitexp.verb.predict_boxes import predict_boxes
from vitexp.verb.predictions import ranked, write_predictions

ALLOWED = (
    "image",
    "data.batch_size",
    "data.num_workers",
    "precision",
    "compile",
    "fuse",
    "select",
    "trainer.",
    "checkpoint",
)


def predict(command: Command) -> dict[str, Any]:
    """Label image files; writes `predictions.csv` into the run's folder, or the working folder without a run.

    Raises:
        ConfigError: no image or no weights named.
        DataError: no such file, or one that is no image.
    """
    if command.cfg.run is None and command.cfg.checkpoint is None:
        raise ConfigError("predict needs weights; give run=last (or a run's name), or model=... checkpoint=FILE")
    if command.cfg.image is None:
        raise ConfigError("predict needs images; give image=FILE, image=FOLDER or image='FOLDER/*.jpg'")
    paths = image_paths(command.cfg.image)
    if (joined := joined_run(command)) is not None:
        return predict_joined(command, joined, paths, allowed=ALLOWED)
    run, cfg = open_for(command, allowed=ALLOWED, verb="predict")
    classes = read_classes(cfg.get("adapter") or cfg.checkpoint)
    data = build.make(cfg.data.module, trust=cfg.trust)
    if classes is None:
        data.prepare_data()
        data.setup("validate")
        classes = list(data.class_names)
    if cfg.data.num_classes is None:
        cfg.data.num_classes = len(classes)
    notes: list[str] = []
    task = build.build_task(cfg, build.build_model(cfg, notes=notes, new_head=False)).eval()
    print_notes(notes, quiet=cfg.quiet)
    build.switches(cfg, task.model, inference=True)
    folder = run.folder if run is not None else Folder(Path())
    if cfg.chosen.task == "detect":
        return {"detections": predict_boxes(task, data, paths, classes, folder, quiet=cfg.quiet)}
    found: dict[int, dict[str, Any]] = {}
    for which, images in data.batches_of_files(paths):
        with torch.inference_mode():
            probabilities = task.predict_step(images, 0).float()
        labelled = ranked(probabilities, [paths[index] for index in which], classes)
        found |= dict(zip(which, labelled, strict=True))
    rows = [found[index] for index in range(len(paths))]
    show(predictions_table(rows, write_predictions(folder, {None: rows})), quiet=cfg.quiet)
    return {"images": len(paths)}


def image_paths(pattern: str) -> list[Path]:
    """The image files that a path, a folder (with its subfolders) or a glob means, sorted.

    Raises:
        DataError: there is none.
    """
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        candidates = [p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES]
    else:
        candidates = [Path(name) for name in glob(str(path), recursive=True) if Path(name).is_file()]
    if not candidates:
        raise DataError(f"image={pattern} matches no image file; give a file, a folder or a quoted glob")
    return sorted(candidates)
