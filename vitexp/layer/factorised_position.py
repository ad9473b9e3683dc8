"""Positions as the sum of a row's and a column's embedding: NaViT (Dehghani et al., arXiv 2307.06304), section 2.1.

Coordinates are a token's row and column in its image, so an image of any grid has positions, and a token keeps its own
when others are dropped. The paper divides a place by the side of the image; here the last place is 1 and the first 0,
so that both mean the same in images of every size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.errors import ConfigError

KINDS = ("learned", "sinusoidal", "fourier")
COORDINATES = ("absolute", "fractional", "aspect")
COMBINED = ("add", "stack", "product")


class FactorisedPosition(nn.Module):
    """Places (..., 2) in grids (..., 2) to embeddings (..., D).

    Args:
        dim: D.
        kind: `learned`, a table for rows and one for columns, read between its entries linearly; `sinusoidal`, fixed
            waves; `fourier`, sine and cosine of learnt linear maps of both coordinates (Li et al. 2021).
        coordinates: `absolute`, the number of the cell; `fractional`, its share of the side; `aspect`, its share of the
            image's longer side, which keeps the aspect ratio.
        max_grid: entries of a table, the grid that coordinates are scaled to. A longer side is squeezed into a learned
            table of absolute places; waves go on.
        combine: of rows and columns, where they are apart: `add`, `stack` (half the channels each) or `product`.
        temperature: of sinusoidal waves, the ratio of the longest to the shortest.
        frequency: of fourier, standard deviation that the maps start at, in radians over `max_grid` cells.

    Raises:
        ConfigError: an unknown word, a width that does not split.
    """

    waves: Tensor

    def __init__(
        self,
        dim: int,
        *,
        kind: str,
        coordinates: str,
        max_grid: int,
        combine: str,
        temperature: float,
        frequency: float,
    ) -> None:
        super().__init__()
        for key, value, allowed in (
            ("kind", kind, KINDS),
            ("coordinates", coordinates, COORDINATES),
            ("combine", combine, COMBINED),
        ):
            if value not in allowed:
                known = f"{', '.join(allowed[:-1])} or {allowed[-1]}"
                raise ConfigError(f"model.position.{key}={value} is unknown; positions are {known}; use {allowed[0]}")
        if max_grid < 2 or dim % 4:
            raise ConfigError(
                f"model.position.max_grid={max_grid} model.dim={dim}: a table has at least 2 entries, and rows and "
                "columns, sine and cosine each take a part of the width; use max_grid=64 and a dim divisible by 4"
            )
        self.kind, self.coordinates, self.combine, self.max_grid = kind, coordinates, combine, max_grid
        part = dim // 2 if combine == "stack" else dim
        if kind == "learned":
            self.rows = nn.Parameter(torch.empty(max_grid, part))
            self.columns = nn.Parameter(torch.empty(max_grid, part))
            nn.init.normal_(self.rows, std=0.02)
            nn.init.normal_(self.columns, std=0.02)
        elif kind == "fourier":
            self.frequencies = nn.Parameter(torch.empty(2, dim // 2))
            nn.init.normal_(self.frequencies, std=frequency)
        else:
            shares = torch.arange(part // 2) / (part // 2)
            self.register_buffer("waves", temperature**-shares, persistent=False)

    def forward(self, places: Tensor, grids: Tensor) -> Tensor:
        index = self.index(places, grids)  # (..., 2)
        if self.kind == "fourier":
            angles = (index / (self.max_grid - 1)) @ self.frequencies
            return torch.cat([angles.sin(), angles.cos()], dim=-1)
        row, column = index.unbind(-1)
        down, across = self._axis(row, 0), self._axis(column, 1)
        if self.combine == "stack":
            return torch.cat([down, across], dim=-1)
        return down + across if self.combine == "add" else down * across

    def index(self, places: Tensor, grids: Tensor) -> Tensor:
        """Coordinates in cells of a grid of `max_grid`, float (..., 2)."""
        last = (grids - 1).clamp(min=1)
        if self.coordinates == "aspect":
            last = last.amax(dim=-1, keepdim=True)
        places, end = places.float(), self.max_grid - 1
        if self.coordinates == "absolute":
            return places if self.kind != "learned" else places * (end / last.clamp(min=end))
        return places * (end / last)

    def resize(self, table: Tensor) -> Tensor:
        """A table of another `max_grid` (M, D) read at this one's entries: (max_grid, D)."""
        rows = table.float().T[None]  # (1, D, M)
        return F.interpolate(rows, self.max_grid, mode="linear", align_corners=True)[0].T.to(table.dtype)

    def _axis(self, index: Tensor, axis: int) -> Tensor:
        if self.kind == "sinusoidal":
            angles = index[..., None] * self.waves
            return torch.cat([angles.sin(), angles.cos()], dim=-1)
        table = self.rows if axis == 0 else self.columns
        low = index.floor().long()
        high = (low + 1).clamp(max=self.max_grid - 1)
        share = (index - low)[..., None]
        return torch.lerp(F.embedding(low, table), F.embedding(high, table), share)
