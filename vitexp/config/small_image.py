"""The small-image rules: what a published geometry becomes where the images are smaller than it was made for.

The YAML files call them as `${patch_size:16,${data.image_size}}`, so `--cfg job` shows the rule and its value.
"""


def patch_size(published: int, image_size: int) -> int:
    """The patch side in pixels for images of `image_size`: the small-image rule.

    The published patch stays where it fits at least 7 × 7 times (224 / 32). Below that it becomes the largest power of
    two that divides the image and leaves a grid of at least 8 × 8, and never less than 2: 4 at 32 pixels, 2 at 8.
    """
    if image_size >= 7 * published:
        return published
    candidates = [2**k for k in range(1, 12) if image_size % 2**k == 0 and 2**k * 8 <= image_size]
    return max(candidates, default=2)


def published(value: object, otherwise: object) -> object:
    """The figure that the model's file states of its published weights, or `otherwise` where it states none."""
    return otherwise if value is None else value


def tokens(image_size: int, patch_size: int, images: int) -> int:
    """The number of tokens that `images` square images of `image_size` have together."""
    return int(images) * max(image_size // patch_size, 1) ** 2


def size_step(image_size: int, patch_size: int) -> int:
    """Pixels that all sizes of a training are multiples of: the largest power of two that fits 7 times, or a patch."""
    return max(2 ** max(image_size // 7, 1).bit_length() // 2, patch_size)


def stem_stride(published: int, image_size: int) -> int:
    """Pixels a cell of the map that a pyramid's first stage gets: the small-image rule for models with stages.

    The published stride stays where it leaves at least 7 × 7 cells. Below that it becomes the largest power of two
    that divides the image and leaves at least 8 × 8: for a published 16, 4 at 32 pixels and 1 at 8.
    """
    if image_size >= 7 * published:
        return published
    candidates = [2**k for k in range(12) if image_size % 2**k == 0 and 2**k * 8 <= image_size]
    return max(candidates, default=1)
