"""The size at which an image of any aspect is shown: NaViT (Dehghani et al., arXiv 2307.06304), section 3.2, B.1.

"Resolution R" is an image resized to an area of about R * R pixels, its aspect kept. Each draw is a function of the
sample's key. A grid has whole patches: each side is rounded, so the aspect is kept to less than a patch.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vitexp import seeding
from vitexp.errors import ConfigError

# Numbers of the draws of a sample's key; on_device.py has those below 100.
SIZE, ASPECT, ROW, COLUMN = 100, 101, 103, 104


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """The distribution of R in training.

    kind: `uniform`; `normal`, cut to the range (the paper's best is mean -0.5 and std 1, of the side); `native`, each
        image at its own size.
    of: whether the `side` R or the `area` R * R has that distribution.
    low, high: the range, as shares of the image size.
    mean, std: of the normal, on a scale where the range is -1 to 1.
    """

    kind: str
    of: str
    low: float
    high: float
    mean: float
    std: float

    def __post_init__(self) -> None:
        for key, value, allowed in (
            ("kind", self.kind, ("uniform", "normal", "native")),
            ("of", self.of, ("side", "area")),
        ):
            if value not in allowed:
                raise ConfigError(
                    f"data.packing.resolution.{key}={value} is unknown; it is one of {', '.join(allowed)};"
                    f" use {allowed[0]}"
                )
        if not 0 < self.low <= self.high or self.std <= 0:
            raise ConfigError(
                f"data.packing.resolution.low={self.low} high={self.high} std={self.std}: the range goes up from above"
                " 0, and std is above 0; use low=0.5 high=1.25 std=1.0"
            )

    def draw(self, keys: Tensor, image_size: int) -> Tensor | None:
        """R in pixels (N,) for the samples of `keys` (N,); None for native sizes."""
        if self.kind == "native":
            return None
        share = seeding.uniform(keys, SIZE).double()
        if self.kind == "normal":
            from scipy.special import ndtr, ndtri

            bounds = torch.from_numpy(ndtr([(edge - self.mean) / self.std for edge in (-1.0, 1.0)]))
            inside = bounds[0] + share * (bounds[1] - bounds[0])
            share = ((torch.from_numpy(ndtri(inside.numpy())) * self.std + self.mean).clamp(-1, 1) + 1) / 2
        power = 1 if self.of == "side" else 2
        drawn = self.low**power + share * (self.high**power - self.low**power)
        return image_size * drawn ** (1 / power)


def boxes(sizes: Tensor, keys: Tensor, *, aspect: float, centred: bool) -> Tensor:
    """A crop of each image with its aspect changed by a log-normal factor: (N, 4), top, left, height, width.

    As large as it fits, anywhere it fits, or in the centre. `aspect` is the standard deviation of the logarithm; 0 is
    the whole image. sizes: (height, width) int64 (N, 2).
    """
    if aspect == 0:
        return torch.cat([torch.zeros_like(sizes), sizes], dim=1)
    from scipy.special import ndtri

    share = seeding.uniform(keys, ASPECT).double().clamp(1e-6, 1 - 1e-6)
    factor = torch.exp(aspect * torch.from_numpy(ndtri(share.numpy())))
    shares = torch.stack([1 / factor.clamp(min=1), factor.clamp(max=1)], dim=1)
    box = (sizes * shares).round().long().clamp(min=1)  # (N, 2)
    places = torch.full_like(shares, 0.5)
    if not centred:
        places = torch.stack([seeding.uniform(keys, ROW), seeding.uniform(keys, COLUMN)], dim=1).double()
    corner = (places * (sizes - box + 1)).long().minimum(sizes - box)
    return torch.cat([corner, box], dim=1)


def grids_of(sizes: Tensor, resolution: Tensor | None, patch_size: int) -> Tensor:
    """Grids in patches, int64 (N, 2), of images (height, width) shown at an area of `resolution` squared."""
    sides = sizes.double()
    if resolution is not None:
        sides = sides * (resolution / sides.prod(dim=1).sqrt())[:, None]
    return (sides / patch_size).round().long().clamp(min=1)


def shrunk(grid: tuple[int, int], cells: int) -> tuple[int, int]:
    """The largest grid of about the same aspect with at most `cells` cells."""
    height, width = grid
    if height * width <= cells:
        return grid
    scale = math.sqrt(cells / (height * width))
    rows = min(max(int(height * scale), 1), cells)
    return rows, max(min(int(width * scale), cells // rows), 1)
