"""Image files of every kind become 8-bit pixels, or an error that names them."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitexp.data.file.image import decode_image, open_image, to_tensor
from vitexp.errors import DataError

READ = {"channels": 3, "max_pixels": 50_000_000}


def read(path: Path, **changes: int) -> torch.Tensor:
    """By both readers, which must agree."""
    settings = READ | changes
    slow, fast = to_tensor(open_image(path, **settings)), decode_image(path, **settings)
    assert torch.equal(slow, fast)
    return fast


@pytest.mark.parametrize(
    ("image", "suffix", "expected"),
    [
        (Image.new("RGB", (8, 6), (200, 100, 50)), "png", (200, 100, 50)),
        (Image.new("L", (8, 6), 77), "png", (77, 77, 77)),
        (Image.new("L", (8, 6), 77), "jpg", (77, 77, 77)),
        (Image.new("1", (8, 6), 1), "png", (255, 255, 255)),
        (Image.new("LA", (8, 6), (7, 9)), "png", (7, 7, 7)),
        (Image.new("RGBA", (8, 6), (200, 100, 50, 0)), "png", (200, 100, 50)),
        (Image.new("RGB", (8, 6), (204, 102, 51)).convert("P"), "gif", (204, 102, 51)),
        (Image.new("CMYK", (8, 6), (0, 255, 255, 0)), "jpg", (255, 0, 0)),
        (Image.new("RGB", (8, 6), (200, 100, 50)), "bmp", (200, 100, 50)),
        (Image.new("RGB", (8, 6), (200, 100, 50)), "ppm", (200, 100, 50)),
    ],
    ids=lambda value: getattr(value, "mode", str(value)),
)
def test_every_mode_becomes_rgb(image: Image.Image, suffix: str, expected: tuple[int, ...], tmp_path: Path) -> None:
    image.save(tmp_path / f"image.{suffix}")
    pixels = read(tmp_path / f"image.{suffix}")
    assert pixels.shape == (3, 6, 8)
    assert pixels.dtype == torch.uint8
    assert pixels[:, 2, 3].tolist() == list(expected)


def test_one_channel_is_grey(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6), (200, 50, 10)).save(tmp_path / "image.jpg")
    assert read(tmp_path / "image.jpg", channels=1).shape == (1, 6, 8)


def test_16_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    assert read(tmp_path / "ramp.png")[0].flatten().tolist() == list(range(256))


def test_a_palette_with_transparency_keeps_its_colours(tmp_path: Path) -> None:
    palette = Image.new("RGB", (8, 6), (204, 102, 51)).convert("P")
    palette.save(tmp_path / "image.png", transparency=bytes([128] * 256))
    assert read(tmp_path / "image.png")[:, 0, 0].tolist() == [204, 102, 51]


def test_of_an_animation_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "image.gif", save_all=True, append_images=frames[1:])
    assert read(tmp_path / "image.gif")[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("size", [(1, 1), (2, 5000), (5000, 2)])
def test_thin_images_are_read(size: tuple[int, int], tmp_path: Path) -> None:
    Image.new("RGB", size).save(tmp_path / "image.jpg")
    assert read(tmp_path / "image.jpg").shape == (3, size[1], size[0])


def jpeg() -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "JPEG")
    return stream.getvalue()


def png() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", jpeg()[:700], jpeg()[:30], png()[:200], png()[:40], b"\x89PNG\r\n\x1a\n", b"<svg></svg>"],
    ids=["empty", "text", "half jpeg", "jpeg head", "half png", "png head", "png name", "svg"],
)
@pytest.mark.parametrize("reader", [open_image, decode_image])
def test_a_damaged_file_is_named(content: bytes, reader: object, tmp_path: Path) -> None:
    file = tmp_path / "broken.jpg"
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        reader(file, **READ)  # type: ignore[operator]
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "BytesIO" not in str(caught.value)


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    Image.new("1", (8000, 7000)).save(tmp_path / "bomb.png")
    with pytest.raises(DataError, match=r"bomb\.png: 8000 x 7000 pixels"):
        decode_image(tmp_path / "bomb.png", **READ)


def test_pillows_own_bomb_limit_is_an_error_too(tmp_path: Path) -> None:
    Image.new("1", (10000, 10000)).save(tmp_path / "bomb.png")
    with pytest.raises(DataError, match=r"bomb\.png"):
        decode_image(tmp_path / "bomb.png", **READ)


def progressive(scans: int, *, side: int = 64, thumbnails: int = 0) -> bytes:
    """A JPEG whose last scan comes again and again; `thumbnails` pretend to be scans of the picture."""
    stream = io.BytesIO()
    Image.new("L", (side, side), 128).save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    first, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    hidden = b"\xff\xe1" + (2 * thumbnails + 2).to_bytes(2, "big") + b"\xff\xda" * thumbnails
    return data[:2] + hidden + data[2:end] + data[first:end] * (scans - data.count(b"\xff\xda")) + data[end:]


def test_scans_of_a_jpeg_are_counted_before_they_are_decoded(tmp_path: Path) -> None:
    (tmp_path / "bomb.jpg").write_bytes(progressive(33))
    for reader in (open_image, decode_image):
        with pytest.raises(DataError, match=r"bomb\.jpg: a JPEG of 33 scans"):
            reader(tmp_path / "bomb.jpg", **READ)
    (tmp_path / "most.jpg").write_bytes(progressive(32, thumbnails=40) + jpeg() * 40)
    assert decode_image(tmp_path / "most.jpg", **READ).shape == (3, 64, 64)


def test_a_file_larger_than_its_pixels_can_be_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(DataError, match=r"huge\.jpg: 8,589,934,592 bytes"):
        open_image(tmp_path / "huge.jpg", **READ)


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "depth.tif")
    with pytest.raises(DataError, match=r"depth\.tif: floating-point"):
        decode_image(tmp_path / "depth.tif", **READ)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jpg"):
        open_image(tmp_path / "nowhere.jpg", **READ)
