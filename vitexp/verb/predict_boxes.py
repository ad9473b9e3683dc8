"""`vitexp predict` for a detector: each image with its boxes drawn, and one JSON with all of them."""

from pathlib import Path
from typing import Any

import torch

from vitexp.data.file.image import open_image
from vitexp.files.folder import Folder, as_name
from vitexp.report.draw_boxes import DrawnBox, draw
from vitexp.report.screen import say

# Detections below it are neither drawn nor written.
THRESHOLD = 0.5


def predict_boxes(task: Any, data: Any, paths: list[Path], classes: list[str], folder: Folder, *, quiet: bool) -> int:
    """Write `predictions/<image>.png` and `predictions/predictions.json` into `folder`; returns how many were found.

    Boxes are [left, top, right, bottom] in pixels of the file. One image at a time, as a detector's padding changes
    what it sees.
    """
    out = folder.sub("predictions").made()
    records: list[dict[str, Any]] = []
    for number, path in enumerate(paths):
        found = _found(task, data, path, classes)
        stem = as_name(path.stem)
        name = f"{stem}.png" if len({as_name(p.stem) for p in paths}) == len(paths) else f"{number:05d}-{stem}.png"
        with out.writing(name) as part:
            _draw(path, found, part, data.pixels.max_pixels)
        records.append({"image": str(path), "drawn": name, "detections": found})
    out.write_json("predictions.json", {"threshold": THRESHOLD, "images": records})
    for record in records[:20]:
        top = ", ".join(f"{d['class']} {d['score']:.2f}" for d in record["detections"][:5]) or "nothing"
        say(f"{record['image']}: {top}", quiet=quiet)
    say(f"written to {out.path}: {len(records)} images and predictions.json", quiet=quiet)
    return sum(len(record["detections"]) for record in records)


def _found(task: Any, data: Any, path: Path, classes: list[str]) -> list[dict[str, Any]]:
    batch = data.batch([data.read_boxes_image(path)])
    with torch.inference_mode():
        (found,) = task.predict_step(batch, 0)
    kept = (found["scores"] > THRESHOLD).nonzero().flatten()
    rows = kept[found["scores"][kept].argsort(descending=True, stable=True)].tolist()
    return [
        {
            "class": classes[int(found["labels"][row])],
            "label": int(found["labels"][row]),
            "score": round(float(found["scores"][row]), 4),
            "box_xyxy": [round(value, 2) for value in found["boxes_xyxy"][row].tolist()],
        }
        for row in rows
    ]


def _draw(path: Path, found: list[dict[str, Any]], out: Path, max_pixels: int) -> None:
    boxes = [DrawnBox(corners=d["box_xyxy"], text=f"{d['class']} {d['score']:.2f}", colour=d["label"]) for d in found]
    draw(open_image(path, channels=3, max_pixels=max_pixels), boxes).save(out)
