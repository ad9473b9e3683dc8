"""One image file looked at before training: can it be read whole, and what is odd about it.

What happens to the odd ones is decided in `vitexp.data.file.image`; here they are only named.
"""

import hashlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageSequence

from vitexp.data.file.image import FORMATS, open_image, read_bytes
from vitexp.errors import DataError

_EXIF_ORIENTATION = 0x0112
_THIN = 10  # long side over short side
_TINY = 8  # pixels
_SUFFIXES = {"JPEG": {".jpg", ".jpeg"}, "TIFF": {".tif", ".tiff"}, "PPM": {".ppm", ".pgm"}}
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Inspection:
    """digest: of the file's content; damage: why it cannot be read, or None; odd: what is unusual about it."""

    digest: str
    damage: str | None
    odd: tuple[str, ...]


def inspect(path: str, *, channels: int, max_pixels: int) -> Inspection:
    """Read a file whole. A damaged one is an answer here, not an error."""
    try:
        content = read_bytes(path, max_pixels)
    except DataError as error:
        return Inspection("", str(error), ())
    except OSError as error:
        return Inspection("", str(error.strerror or error), ())
    digest = hashlib.sha256(content).hexdigest()
    try:
        open_image(path, channels=channels, max_pixels=max_pixels)
    except DataError as error:
        reason = str(error).removeprefix(f"{path}: ").removesuffix("; replace or remove the file")
        return Inspection(digest, reason, ())
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        return Inspection(digest, None, tuple(_odd(image, Path(path).suffix.lower(), channels)))


def damaged(paths: Sequence[str], *, channels: int, max_pixels: int) -> list[str | None]:
    """The reason why each file cannot be read, or None."""
    looked = each(lambda path: inspect(path, channels=channels, max_pixels=max_pixels), paths)
    return [found.damage for found in looked]


def each(look: Callable[[str], _Answer], paths: Sequence[str]) -> list[_Answer]:
    """The answers in the order of the files; decoders let other threads run."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(look, paths))


def _odd(image: Image.Image, suffix: str, channels: int) -> list[str]:
    mode, (width, height) = image.mode, image.size
    turned = image.getexif().get(_EXIF_ORIENTATION, 1) != 1
    findings = {
        "16 bits a channel": mode == "I" or mode.startswith("I;16"),
        "CMYK": mode == "CMYK",
        "palette": mode == "P",
        "transparent": "A" in mode or "transparency" in image.info,
        "grey": mode in ("L", "LA", "1") and channels == 3,
        "animated": len(list(islice(ImageSequence.Iterator(image), 2))) > 1,
        "turned by EXIF": turned,
        f"smaller than {_TINY} pixels": min(width, height) < _TINY,
        f"longer than {_THIN} times its width": max(width, height) > _THIN * min(width, height),
        "suffix of another format": suffix not in _SUFFIXES.get(str(image.format), {f".{image.format}".lower()}),
    }
    return [name for name, found in findings.items() if found]
