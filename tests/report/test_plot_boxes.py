"""Boxes drawn on images, and the figures of a detection run."""

from pathlib import Path

import numpy as np
from PIL import Image

from vitexp.report.draw_boxes import DrawnBox, draw, enlarged
from vitexp.report.plot_boxes import attention, boxes_grid, query_boxes

BOX = DrawnBox(corners=[20, 40, 60, 80], text="$[red] 0.98", colour=0)


def test_lines_are_on_the_corners_and_the_image_stays() -> None:
    image = Image.new("RGB", (100, 120), "white")
    drawn = np.asarray(draw(image, [BOX]))
    for row, column in ((80, 40), (60, 20), (60, 60)):
        assert drawn[row, column].tolist() == [0, 114, 178]
    assert drawn[60, 40].tolist() == [255, 255, 255]
    assert image.getpixel((20, 60)) == (255, 255, 255)


def test_boxes_outside_or_turned_round_do_no_harm() -> None:
    image = Image.new("RGB", (30, 20))
    odd = [[-50, -50, -10, -10], [25, 15, 5, 5], [-5, -5, 90, 90]]
    boxes = [DrawnBox(corners=corners, text="a name that is longer than the image", colour=9) for corners in odd]
    assert draw(image, boxes).size == (30, 20)


def test_small_images_are_enlarged() -> None:
    image, factor = enlarged(np.zeros((1, 10, 20), dtype=np.uint8), 40)
    assert (image.size, image.mode, factor) == ((80, 40), "RGB", 4.0)


def test_figures_are_written(tmp_path: Path) -> None:
    images = [np.full((3, 40, 60), 128, dtype=np.uint8), np.full((3, 60, 30), 128, dtype=np.uint8)]
    grid = boxes_grid(images, [[BOX], []], ["one", "none"], tmp_path / "grid.png", headline="Detections", title="run")
    maps = [np.random.default_rng(0).random((1, 3, 4)), np.zeros((0, 3, 4))]
    gaze = attention(images, [[BOX], []], maps, tmp_path / "attention.png", title="run")
    queries = query_boxes(np.random.default_rng(0).random((5, 7, 4)), tmp_path / "queries.png", title="run")
    for path in (grid, gaze, queries):
        with Image.open(path) as picture:
            assert min(picture.size) > 200
