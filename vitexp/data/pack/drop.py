"""The share of an image's tokens left out in training: NaViT (arXiv 2307.06304), section 2.2, appendix B.6 and 7.

Every draw is a function of the sample's key, and which tokens go of its key too. At least one token stays.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitexp import seeding
from vitexp.errors import ConfigError

KINDS = ("none", "constant", "beta", "resolution", "schedule")
RATE, TOKENS = 102, 105  # draws of a sample's key, and the stream of its tokens
# Constants of the paper: variance of the Beta over that of a coin, width of the truncated normal and where it is cut.
SPREAD, DEVIATION, CUT = 0.3, 0.02, 2.0


@dataclass(frozen=True, kw_only=True)
class Drop:
    """The distribution of each image's rate.

    kind: `none`; `constant`, the rate `mean`; `beta`, mean `mean`, never above `max`; `resolution`, around a line from
        `low` at the fewest tokens of the resolution's range to `high` at the most; `schedule`, from `low` to `high` by
        a sigmoid in the epochs seen, `midpoint` its middle and `width` its scale, negative for falling.
    """

    kind: str
    mean: float
    max: float
    low: float
    high: float
    midpoint: float
    width: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(
                f"data.packing.drop.kind={self.kind} is unknown; it is one of {', '.join(KINDS)}; use none or beta"
            )
        rates = (self.mean, self.max, self.low, self.high)
        if not all(0 <= rate < 1 for rate in rates) or (self.kind == "beta" and not 0 < self.mean < self.max):
            raise ConfigError(
                f"data.packing.drop.mean={self.mean} max={self.max} low={self.low} high={self.high}: rates are from 0"
                " to below 1, and mean is below max; use mean=0.5 max=0.9 low=0.2 high=0.8"
            )
        if self.width == 0:
            raise ConfigError("data.packing.drop.width=0 is no scale; use 1.0 epochs, or -1.0 for a rate that falls")

    def rates(self, keys: Tensor, *, cells: Tensor, ends: tuple[float, float], seen: Tensor) -> Tensor:
        """The rate of each image, float64 (N,).

        Args:
            keys: of the samples (N,).
            cells: tokens of each.
            ends: fewest and most tokens of the range of resolutions.
            seen: epochs seen when its turn comes, a fraction (N,).
        """
        if self.kind == "none":
            return torch.zeros(len(keys), dtype=torch.float64)
        if self.kind == "constant":
            return torch.full((len(keys),), self.mean, dtype=torch.float64)
        if self.kind == "schedule":
            return self.low + (self.high - self.low) * torch.sigmoid((seen.double() - self.midpoint) / self.width)
        from scipy.special import betaincinv, ndtr, ndtri

        share = seeding.uniform(keys, RATE).double().numpy()
        if self.kind == "beta":
            total, middle = 1 / SPREAD - 1, self.mean / self.max
            return self.max * torch.from_numpy(betaincinv(total * middle, total * (1 - middle), share))
        edge = ndtr(CUT)
        noise = DEVIATION * torch.from_numpy(ndtri(1 - edge + share * (2 * edge - 1)))
        fewest, most = ends
        line = ((cells - fewest) / max(most - fewest, 1)).clamp(0, 1)
        return (self.low + (self.high - self.low) * line + noise).clamp(0, 1)


def kept_counts(cells: Tensor, rates: Tensor) -> Tensor:
    """The number of `cells` tokens that stay, int64 (N,)."""
    return (cells * (1 - rates)).round().long().clamp(min=1)


def kept_tokens(key: int, cells: int, count: int) -> Tensor | None:
    """The `count` of `cells` tokens that stay, in order; None if all do."""
    if count >= cells:
        return None
    return seeding.sample_keys(key, TOKENS, torch.arange(cells)).argsort()[:count].sort().values
