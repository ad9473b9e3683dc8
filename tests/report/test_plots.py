"""Pictures: written, of the promised kind, and showing what they are given; they were looked at by eye as well."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitexp.errors import ResourceError
from vitexp.report import plot_images
from vitexp.report.figure import figure
from vitexp.report.plot_confusion import confusion
from vitexp.report.plot_curves import curves, smooth
from vitexp.report.plot_images import batch, mistakes, to_uint8

HEAD = "step,epoch,lr,train/loss_step,val/loss,val/top1,val/top5,test/top1\n"


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def metrics_file(folder: Path, rows: int) -> Path:
    lines = [f"{s},{s // 10},{0.1 / s:.4f},{2 / s:.4f},{2 / s:.4f},{1 - 1 / s:.4f},1," for s in range(1, rows + 1)]
    path = folder / "metrics.csv"
    path.write_text(HEAD + "".join(f"{line}\n" for line in lines))
    return path


@pytest.mark.parametrize("rows", [1, 2, 60])
def test_curves_of_any_length(tmp_path: Path, rows: int) -> None:
    written = curves(metrics_file(tmp_path, rows), tmp_path / "plots", title="run · vit_nano on digits")
    assert [path.name for path in written] == ["loss.png", "accuracy.png", "learning_rate.png"]
    for path in written:
        picture = pixels(path)
        assert picture.shape == (750, 1200, 3)
        assert len(np.unique(picture[::5, ::5].reshape(-1, 3), axis=0)) > 50


def test_curves_draw_only_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,epoch,val/loss\n5,0,1.5\n")
    assert [written.name for written in curves(path, tmp_path)] == ["loss.png"]
    path.write_text("step,epoch\n")
    assert curves(path, tmp_path) == []


def test_smooth_keeps_constants_and_the_mean_of_its_window() -> None:
    np.testing.assert_allclose(smooth(np.full(100, 3.0)), 3.0)
    values = np.arange(200.0)
    np.testing.assert_allclose(smooth(values)[5:-5], values[5:-5])
    assert smooth(np.array([])).shape == (0,)


@pytest.mark.parametrize("count", [2, 10, 24, 25, 100, 1000])
def test_confusion_of_any_number_of_classes(tmp_path: Path, count: int) -> None:
    matrix = np.eye(count, dtype=int) * 9
    matrix[0, 1] = 4
    path = confusion(matrix, [f"class {k}" for k in range(count)], tmp_path / "confusion.png", title="t")
    height, width, _ = pixels(path).shape
    assert 500 < height < 2500
    assert 500 < width < 2500


def test_confusion_shows_a_single_confusion_among_a_thousand_classes(tmp_path: Path) -> None:
    matrix, names = np.eye(1000, dtype=int) * 50, [str(k) for k in range(1000)]
    clean = pixels(confusion(matrix, names, tmp_path / "a.png"))
    matrix[100, 800] = 3
    left = slice(0, 900)  # the map, without the bars beside it
    assert (clean[:, left] != pixels(confusion(matrix, names, tmp_path / "b.png"))[:, left]).any()


def test_confusion_refuses_another_shape(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\(3, 3\)"):
        confusion(np.zeros((2, 2)), ["a", "b", "c"], tmp_path / "x.png")


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 32), (3, 224)])
def test_mistakes_of_any_size(tmp_path: Path, channels: int, side: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, channels, side, side), dtype=np.uint8)
    true, predicted = np.arange(7) % 3, (np.arange(7) + 1) % 3
    path = mistakes(images, true, predicted, np.linspace(0.5, 1, 7), ["a", "b", "c"], tmp_path / "m.png", title="t")
    assert len(np.unique(pixels(path)[::5, ::5].reshape(-1, 3), axis=0)) > 100


def test_mistakes_are_the_wrong_ones_surest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []
    monkeypatch.setattr(plot_images, "_show", lambda axes, image, extent: shown.append(int(image[0, 0, 0])))
    images = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)
    confidence = np.array([0.9, 0.2, 0.99, 0.5, 0.7])
    mistakes(images, np.zeros(5, int), np.array([1, 1, 0, 1, 1]), confidence, ["a", "b"], tmp_path / "m.png")
    assert shown == [0, 4, 3, 1]  # 2 is right, though the surest


def test_no_mistakes_is_a_picture_too(tmp_path: Path) -> None:
    none = np.zeros(0, int)
    path = mistakes(np.zeros((0, 3, 8, 8), np.uint8), none, none, np.zeros(0), ["a"], tmp_path / "m.png")
    assert pixels(path).size


def test_tiny_images_stay_squares(tmp_path: Path) -> None:
    images = np.zeros((1, 1, 2, 2), np.uint8)
    images[0, 0, 0, 0] = 255
    picture = pixels(batch(images, np.array([0]), ["a"], tmp_path / "b.png"))
    # Below the title, the only colours of the image area are its own two, but for a seam between them.
    seen = picture[150:300, 10:250, 0]
    assert np.isin(seen, (0, 255)).mean() > 0.97


@pytest.mark.parametrize("labels", [np.array([0, 1, 1]), np.array([[0.9, 0.05, 0.05], [0.6, 0.4, 0], [0, 0, 1]])])
def test_batch_takes_ids_and_shares(tmp_path: Path, labels: np.ndarray) -> None:
    images = np.zeros((3, 3, 8, 8), np.uint8)
    assert pixels(batch(images, labels, ["a", "b", "c"], tmp_path / "b.png", title="t")).size


def test_names_from_data_are_only_text(tmp_path: Path) -> None:
    names = ["$x^2$", "a\nb\x1b[31m", "고양이", "_{}\\", "$"]
    confusion(np.ones((5, 5), int), names, tmp_path / "c.png", title="$\\frac{$")
    batch(np.zeros((5, 1, 8, 8), np.uint8), np.arange(5), names, tmp_path / "b.png", title="\x00")


def test_to_uint8_undoes_the_normalisation() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4), dtype=np.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
    normal = (images / 255 - np.reshape(mean, (1, 3, 1, 1))) / np.reshape(std, (1, 3, 1, 1))
    np.testing.assert_array_equal(to_uint8(normal.astype(np.float32), mean, std), images)
    assert to_uint8(np.full((1, 3, 1, 1), 100.0), mean, std).max() == 255


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ResourceError, match="cannot write"),
        figure(tmp_path / "file" / "x.png", headline="h", size=(2, 2)),
    ):
        pass


def test_settings_of_the_user_and_pyplot_stay_out(tmp_path: Path) -> None:
    import matplotlib

    with matplotlib.rc_context({"savefig.dpi": 10, "font.size": 40}):
        batch(np.zeros((1, 1, 8, 8), np.uint8), np.array([0]), ["a"], tmp_path / "a.png")
        assert matplotlib.rcParams["font.size"] == 40
    batch(np.zeros((1, 1, 8, 8), np.uint8), np.array([0]), ["a"], tmp_path / "b.png")
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))


def test_no_plot_module_names_pyplot() -> None:
    for path in Path(plot_images.__file__).parent.glob("*.py"):
        assert "matplotlib.pyplot" not in path.read_text()
