"""Large maps of a batch a few images at a time, where only the output is wanted: the caches then hold what is read.

A map of a whole batch is read from memory again by each layer after it, and beyond 32 MB the system hands out fresh
pages for each; a part of the batch goes through several layers at the speed of the cache. The output is the same,
because no layer in evaluation mixes images.
"""

from collections.abc import Callable

import torch
from torch import Tensor

PART_BYTES = 4 * 2**20  # of a part's largest map, for each thread; 2 to 8 MiB were alike on an EPYC


def in_parts(function: Callable[[Tensor], Tensor], images: Tensor, *, bytes_per_image: int) -> Tensor:
    """`function(images)`, on the CPU and without gradients in parts of the batch.

    Args:
        function: treats images (B, ...) one by one.
        images: (B, ...).
        bytes_per_image: size of the largest map that `function` makes of an image.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # asked first: a look at the size would fix it
        return function(images)
    part = max(1, PART_BYTES * torch.get_num_threads() // bytes_per_image)
    if images.device.type != "cpu" or torch.is_grad_enabled() or part >= len(images):
        return function(images)
    return torch.cat([function(few) for few in images.split(part)])
