"""Images of any size in sequences of tokens: what a data loader hands to a model that packs.

B sequences, L tokens each, K images a sequence at most, P pixels a side of a patch. Tokens of an image stand together,
images in the order of their labels: sequence by sequence, and within one from its start; padding is at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedImages:
    """A batch. Its length is the number of images, as that of a tensor of images is.

    patches: float32 (B, L, C * P * P), channel, row, column; 0 where padded. places: int64 (B, L, 2), row and column
    of each token in its image, whatever tokens were dropped. grids: int64 (B, L, 2), rows and columns of that image,
    1 where padded. owner: int64 (B, L), which image of the sequence a token is of, -1 where padded. lengths: for each
    sequence the tokens of each of its images. weight: of this batch's mean loss, so that the mean over processes and
    accumulated batches is the mean over images.
    """

    patches: Tensor
    places: Tensor
    grids: Tensor
    owner: Tensor
    lengths: tuple[tuple[int, ...], ...]
    patch_size: int
    weight: float = 1.0

    def __len__(self) -> int:
        return sum(len(images) for images in self.lengths)

    @property
    def num_tokens(self) -> int:
        """Tokens that are of an image."""
        return sum(sum(images) for images in self.lengths)

    @property
    def padding_rate(self) -> float:
        """Share of the tokens that are padding."""
        return 1 - self.num_tokens / self.owner.numel()

    def pictures(self, which: Sequence[int], side: int) -> Tensor:
        """Images by number as they are shown, (n, C, side, side): the longer side fills a square, all else is 0.

        What was dropped or is beside the image is 0, the mean colour.
        """
        starts = [(row, sum(images[:slot])) for row, images in enumerate(self.lengths) for slot in range(len(images))]
        counts = [count for images in self.lengths for count in images]
        drawn = [self._picture(*starts[image], counts[image], side) for image in which]
        channels = self.patches.shape[2] // self.patch_size**2
        return torch.stack(drawn) if drawn else self.patches.new_zeros(0, channels, side, side)

    def _picture(self, row: int, start: int, count: int, side: int) -> Tensor:
        patch, here = self.patch_size, slice(start, start + count)
        height, width = self.grids[row, start].tolist()
        longest = max(height, width)
        canvas = self.patches.new_zeros(longest, longest, self.patches.shape[2])
        rows, columns = self.places[row, here].unbind(1)
        canvas[rows, columns] = self.patches[row, here]
        pixels = canvas.unflatten(2, (-1, patch, patch)).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
        return F.interpolate(pixels[None], (side, side), mode="nearest")[0]

    def to(self, device: Any, **options: Any) -> "PackedImages":
        """The batch on a device."""
        names = ("patches", "places", "grids", "owner")
        return replace(self, **{name: getattr(self, name).to(device, **options) for name in names})


def pack_images(
    sequences: list[list[tuple[Tensor, Tensor, tuple[int, int]]]], *, length: int, patch_size: int, weight: float = 1.0
) -> PackedImages:
    """Images as (patches (n, C * P * P), places (n, 2), grid) in sequences of `length` tokens."""
    first = sequences[0][0][0]
    shape = (len(sequences), length)
    patches = first.new_zeros(*shape, first.shape[1])
    places = torch.zeros(*shape, 2, dtype=torch.int64)
    grids = torch.ones(*shape, 2, dtype=torch.int64)
    owner = torch.full(shape, -1, dtype=torch.int64)
    for row, images in enumerate(sequences):
        start = 0
        for slot, (tokens, where, grid) in enumerate(images):
            here = slice(start, start + len(tokens))
            patches[row, here], places[row, here], owner[row, here] = tokens, where, slot
            grids[row, here] = torch.tensor(grid)
            start += len(tokens)
    lengths = tuple(tuple(len(tokens) for tokens, _, _ in images) for images in sequences)
    return PackedImages(
        patches=patches, places=places, grids=grids, owner=owner, lengths=lengths, patch_size=patch_size, weight=weight
    )


def to_patches(images: Tensor, patch_size: int) -> Tensor:
    """Images (..., C, H, W), sides multiples of the patch, to patches (..., h * w, C * P * P), row by row."""
    cut = images.unflatten(-1, (-1, patch_size)).unflatten(-3, (-1, patch_size))  # (..., C, h, P, w, P)
    cut = cut.movedim((-4, -2), (-5, -4))  # (..., h, w, C, P, P)
    return cut.flatten(-3).flatten(-3, -2)


def grid_places(grid: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """Row and column of each cell of a grid (h, w), row by row: int64 (h * w, 2)."""
    rows, columns = (torch.arange(side, device=device) for side in grid)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)  # (h * w, 2)
