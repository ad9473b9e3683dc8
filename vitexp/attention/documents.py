"""Attention within each of several images that share a sequence (NaViT, section 2.2): one mask, several kernels.

A `Documents` stands where a bool mask does. Whatever the kernel, the result is that of the mask:

    mask    fused attention under the bool mask, of sequences with padding; any device, any attention that takes a mask
    split   fused attention of each image, those of one length together; no padding, no arithmetic between images
    jagged  the same by torch's nested tensors
    varlen  torch's variable-length kernel: CUDA, half precision
    flex    FlexAttention with a compiled block mask: CUDA, in training; elsewhere for inference only

The last four are for attentions that hand their mask to `fused_attention` alone (`takes_documents`).
"""

import warnings
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vitexp.errors import ConfigError

KERNELS = ("mask", "split", "jagged", "varlen", "flex")
# Kernels over one sequence of all images without padding; the others see sequences with padding.
FLAT = ("split", "jagged", "varlen")

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class Documents:
    """The tokens of x (B, N, D) that may attend each other: those of one image.

    Args:
        kernel: one of `KERNELS`.
        owner: int64 (B, N), which image of its sequence a token is of, -1 where padded.
        counts: tokens of each image in the order in which they stand; images of one length together for `split`.
        present: bool (B, K), which of the images 0 .. K - 1 each sequence has.
    """

    def __init__(self, kernel: str, owner: Tensor, counts: Sequence[int], present: Tensor) -> None:
        self.kernel, self.owner, self.counts, self.present = kernel, owner, counts, present

    @cached_property
    def of_image(self) -> Tensor:
        """Bool (B, K, N), True where a token is of image K: what each image is pooled over."""
        slots = torch.arange(self.present.shape[1], device=self.owner.device)
        return self.owner[:, None, :] == slots[:, None]

    @cached_property
    def dense(self) -> Tensor:
        """Bool (B, 1, N, N), True = may attend; padding attends nothing and nothing attends it."""
        same = self.owner[:, :, None] == self.owner[:, None, :]
        return (same & (self.owner >= 0)[:, :, None])[:, None]

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, dropout_rate: float) -> Tensor:
        """`fused_attention` under the mask: (B, H, N, d)."""

        def fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_rate, scale=scale)

        if self.kernel == "mask":
            return fused(q, k, v, self.dense)
        if self.kernel == "split":
            return split_attention(q, k, v, self.counts, fused)
        if self.kernel == "jagged":
            return _jagged(q, k, v, self._offsets, fused)
        if self.kernel == "varlen":
            return _varlen(q, k, v, self._offsets.int(), max(self.counts), scale)
        return _flex(q, k, v, self._block_mask, scale)

    @cached_property
    def _offsets(self) -> Tensor:
        counts = torch.tensor([0, *self.counts], device=self.owner.device)
        return counts.cumsum(0)

    @cached_property
    def _block_mask(self) -> Any:
        from torch.nn.attention.flex_attention import create_block_mask

        owner = self.owner

        def together(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return (owner[b, q] == owner[b, k]) & (owner[b, q] >= 0)

        batch, tokens = owner.shape
        return create_block_mask(together, batch, None, tokens, tokens, device=str(owner.device))


def split_attention(q: Tensor, k: Tensor, v: Tensor, counts: Sequence[int], attend: Attend) -> Tensor:
    """Attention within each image of one sequence: q (1, H, N or one an image, d), k, v (1, H, N, d) -> like q.

    Neighbours of one length are one call. With one query an image, that is pooling.
    """
    own = q.shape[2] != sum(counts)
    read, token, image = [], 0, 0
    for count, group in groupby(counts):
        images = len(list(group))
        stop = token + images * count
        queries = q[:, :, image : image + images] if own else q[:, :, token:stop]
        parts = (_rows(queries, images), _rows(k[:, :, token:stop], images), _rows(v[:, :, token:stop], images))
        values = attend(*parts)  # (images, H, count or 1, d)
        read.append(values.transpose(0, 1).flatten(1, 2))  # (H, images * count, d)
        token, image = stop, image + images
    return torch.cat(read, dim=1)[None]


def _rows(x: Tensor, images: int) -> Tensor:
    """(1, H, images * n, d) -> (images, H, n, d)."""
    return x[0].unflatten(1, (images, -1)).transpose(0, 1)


def _jagged(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, attend: Attend) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*nested tensors.*prototype.*")
        nested = (
            torch.nested.nested_tensor_from_jagged(x[0].transpose(0, 1).contiguous(), offsets).transpose(1, 2)
            for x in (q, k, v)
        )
        values: Tensor = attend(*nested).transpose(1, 2).values()  # (N, H, d)
    return values.transpose(0, 1)[None]


def _varlen(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, longest: int, scale: float) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    # The kernel's own scale is 1 / sqrt(d).
    q = q * (scale * q.shape[-1] ** 0.5)
    query, key, value = (x[0].transpose(0, 1).contiguous() for x in (q, k, v))  # (N, H, d)
    values: Any = varlen_attn(query, key, value, offsets, offsets, longest, longest)
    out: Tensor = values.transpose(0, 1)[None]
    return out


def _flex(q: Tensor, k: Tensor, v: Tensor, block_mask: Any, scale: float) -> Tensor:
    out: Tensor = _flex_kernel(q.device.type)(q, k, v, block_mask=block_mask, scale=scale)
    return out


@cache
def _flex_kernel(device: str) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention) if device == "cuda" else flex_attention


def choose_kernel(asked: str, *, device: torch.device, half: bool, trains: bool, dropout: bool, documents: bool) -> str:
    """The kernel to use: `asked`, or with auto the fastest that is right here.

    Args:
        asked: auto or one of `KERNELS`.
        device: of the tokens.
        half: whether they are float16 or bfloat16.
        trains: whether a gradient will be asked for.
        dropout: whether weights are dropped.
        documents: whether the attention takes documents.

    Raises:
        ConfigError: one that cannot work here.
    """
    if asked not in ("auto", *KERNELS):
        raise ConfigError(f"model.kernel={asked} is unknown; use auto, {', '.join(KERNELS[:-1])} or {KERNELS[-1]}")
    cuda = device.type == "cuda"
    able = {
        "mask": True,
        "split": documents,
        "jagged": documents,
        "varlen": documents and cuda and half and not dropout and has_varlen(),
        "flex": documents and not dropout and (cuda or not trains),
    }
    if asked == "auto":
        preferred = ("varlen", "flex") if cuda else ("split",) if device.type in ("cpu", "meta") else ()
        return next((kernel for kernel in preferred if able[kernel]), "mask")
    if able[asked]:
        return asked
    needs = {
        "varlen": "a CUDA device, half precision, no dropout and torch 2.10 or newer",
        "flex": "a CUDA device in training, and no dropout",
    }
    raise ConfigError(
        f"model.kernel={asked} cannot run on {device.type} in this arithmetic; it needs an attention over softmax"
        f"{', ' + needs[asked] if asked in needs else ''}; use model.kernel=auto"
    )


@cache
def has_varlen() -> bool:
    """Whether this torch has the variable-length kernel."""
    try:
        from torch.nn.attention.varlen import varlen_attn  # noqa: F401
    except ImportError:
        return False
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
