"""Image files to pixels, with everything that a data set from elsewhere may hold decided once.

A file is opened only as one of `FORMATS`, its size checked before a pixel is decoded, and a JPEG's scans counted: each
passes over all pixels, and a few bytes make one, so that a small file could take minutes. Every mode becomes 8-bit RGB
(or grey, for one channel): grey is repeated, palettes are looked up, CMYK is converted without a colour profile, alpha
is dropped, 16-bit values are scaled by 1/257 and not clipped, animations give their first frame, and an orientation tag
is not applied: all but the 16-bit rule is what timm and torchvision do. Floating-point images have no fixed range and
are refused. A JPEG with flipped bits may decode to other pixels without an error; nothing here can know.

Training decodes JPEG by torchvision, measured 1.35 times as fast as Pillow with the random crop after it, with equal
pixels; Pillow reads the rest. torchvision 0.29 points to TorchCodec instead, which is no dependency of vitexp:
where `decode_jpeg` is gone, Pillow reads JPEG too.
"""

import io
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitexp.errors import DataError, first_line
from vitexp.files.plain import open_plain

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})

# Encoders write up to about 20 for three channels.
MAX_SCANS = 32
# Of a file to a pixel: 16-bit RGB takes six uncompressed. And what a file may hold besides.
_MAX_BYTES, _EXTRA_BYTES = 8, 1 << 20
_SCAN = b"\xff\xda"
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not those that stand inside a scan

# What Pillow and torchvision raise on damaged files, next to OSError.
_DAMAGED = (OSError, SyntaxError, ValueError, RuntimeError, EOFError, struct.error, zlib.error)


def open_image(path: str | Path, *, channels: int, max_pixels: int) -> Image.Image:
    """Read a file by Pillow: mode RGB for 3 channels, L for 1. Raises DataError with the file's name."""
    with _named(path):
        return _convert(_header(read_bytes(path, max_pixels), max_pixels), channels)


def decode_image(path: str | Path, *, channels: int, max_pixels: int) -> Tensor:
    """Read a file by the fastest decoder: uint8 (C, H, W). Raises DataError with the file's name."""
    with _named(path):
        data = read_bytes(path, max_pixels)
        image = _header(data, max_pixels)
        if image.format == "JPEG" and image.mode in ("RGB", "L"):
            return _decode_jpeg(data, image, channels)
        return to_tensor(_convert(image, channels))


def image_size(path: str | Path, *, max_pixels: int) -> tuple[int, int]:
    """Height and width of a file by its header, no pixel decoded. Raises DataError with the file's name."""
    with _named(path), open_plain(path) as stream:
        return _checked(Image.open(stream, formats=FORMATS), max_pixels).size[::-1]


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB or L image as uint8 (C, H, W)."""
    pixels = torch.from_numpy(np.array(image))
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def to_image(pixels: Tensor) -> Image.Image:
    """uint8 (C, H, W) as an RGB or L image."""
    return Image.fromarray(pixels.squeeze(0).numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy())


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """Turn what a decoder raises into one DataError that names the file."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}; replace or remove the file") from None
    except (*_DAMAGED, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = first_line(error).split("<_io.BytesIO")[0].strip()
        raise DataError(f"{path}: not a readable image ({reason}); replace or remove the file") from error


def read_bytes(path: str | Path, max_pixels: int) -> bytes:
    """The content of an image file. Raises OSError, and DataError if it is too large for so many pixels."""
    with open_plain(path) as stream:
        size, most = os.fstat(stream.fileno()).st_size, _MAX_BYTES * max_pixels + _EXTRA_BYTES
        if size > most:
            raise DataError(
                f"{size:,} bytes are more than the {most:,} that data.max_pixels={max_pixels} leaves room for"
            )
        return stream.read()


def _header(data: bytes, max_pixels: int) -> Image.Image:
    """Open without decoding, and refuse what would not fit or would take too long."""
    image = _checked(Image.open(io.BytesIO(data), formats=FORMATS), max_pixels)
    if image.format in ("JPEG", "MPO") and data.count(_SCAN) > MAX_SCANS and (scans := _scans(data)) > MAX_SCANS:
        raise DataError(f"a JPEG of {scans} scans could take minutes to decode, and {MAX_SCANS} are allowed")
    return image


def _scans(data: bytes) -> int:
    """The number of passes over the pixels of a JPEG's first picture; thumbnails and later pictures do not count."""
    scans, position = 0, 2
    while (found := _MARKER.search(data, position)) is not None and found.group() != b"\xff\xd9":
        scans += found.group() == _SCAN
        length = int.from_bytes(data[found.end() : found.end() + 2], "big")
        position = found.end() + max(length, 2)
    return scans


def _checked(image: Image.Image, max_pixels: int) -> Image.Image:
    width, height = image.size
    if width * height > max_pixels:
        raise DataError(f"{width} x {height} pixels are more than the {max_pixels:,} of data.max_pixels")
    return image


def _convert(image: Image.Image, channels: int) -> Image.Image:
    mode = "RGB" if channels == 3 else "L"
    if image.mode == "F":
        raise DataError("floating-point pixels have no fixed range: save it with 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _scale_16_bit(image)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns on the direct way
    if image.mode == mode:
        image.load()
        return image
    return image.convert(mode)


def _scale_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise DataError("integer pixels outside 0..65535: save it with 8 or 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _decode_jpeg(data: bytes, image: Image.Image, channels: int) -> Tensor:
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError:
        return to_tensor(_convert(image, channels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        mode = ImageReadMode.RGB if channels == 3 else ImageReadMode.GRAY
        return decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=mode)
