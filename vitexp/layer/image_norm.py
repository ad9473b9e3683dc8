"""A norm over everything in an image: GroupNorm with one group (Wu and He 2018), as MobileViT v2 normalises tokens."""

from torch import Tensor, nn


class ImageNorm(nn.GroupNorm):
    """(x - mean) / std over all P sets, N tokens and D channels of an image, then a scale and a shift a channel.

    (B, P, N, D) -> (B, P, N, D). So it couples all tokens: there is no masking or packing with it.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(1, dim)

    def forward(self, x: Tensor) -> Tensor:
        # Seen as (B, D, P, N) the tokens are channels-last, for which there is a kernel without copies.
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
