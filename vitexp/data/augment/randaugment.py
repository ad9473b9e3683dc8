"""RandAugment (Cubuk et al. 2019, section 3) on batches: images that drew the same operation are changed together.

The fourteen operations and ranges are torchvision's, the magnitude runs to 10 as in the paper's code: at magnitude m
an operation takes m / 10 of its range. As in the paper the magnitude is fixed and its sign drawn. The five geometric
operations are affine maps and go through one bilinear sampling, whatever they are.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vitexp import seeding
from vitexp.data.augment.warp import warp

GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
BLENDED = ("brightness", "color", "contrast", "sharpness")
UNSIGNED = ("posterize", "solarize", "autocontrast", "equalize")
OPERATIONS = ("identity", *GEOMETRIC, *BLENDED, *UNSIGNED)

# Values at magnitude 10: a slope, a share of the width, an angle; the blends reach 1 +- 0.9 and posterize 4 bits.
_SHEAR, _TRANSLATE, _ROTATE, _BLEND, _BITS = 0.3, 150 / 331, math.radians(30), 0.9, 4


def randaugment(
    images: Tensor, keys: Tensor, *, ops: int, magnitude: float, fill: list[float], first_draw: int
) -> Tensor:
    """Apply `ops` drawn operations to each image, one after the other.

    images uint8 (B, C, H, W), keys int64 (B,) on the CPU, magnitude 0..10; `fill` is the colour that geometric
    operations bring in; draws first_draw .. first_draw + 2 ops - 1 of the keys are used.
    """
    strength = magnitude / 10
    for step in range(ops):
        chosen = (seeding.uniform(keys, first_draw + 2 * step) * len(OPERATIONS)).long()
        signs = torch.where(seeding.uniform(keys, first_draw + 2 * step + 1) < 0.5, -1.0, 1.0)
        images = _step(images, chosen, signs, strength, fill)
    return images


def _step(images: Tensor, chosen: Tensor, signs: Tensor, strength: float, fill: list[float]) -> Tensor:
    """One operation an image: `chosen` (B,) indexes OPERATIONS, `signs` (B,) is -1 or 1."""
    images = images.clone()
    first, last = OPERATIONS.index(GEOMETRIC[0]), OPERATIONS.index(GEOMETRIC[-1])
    moved = ((chosen >= first) & (chosen <= last)).nonzero().flatten()
    if len(moved):
        maps = geometric_maps(chosen[moved], signs[moved] * strength)
        moved = moved.to(images.device)
        images[moved] = warp(images[moved], maps, fill=fill)
    for name in BLENDED:
        for sign in (-1.0, 1.0):
            _apply(images, (chosen == OPERATIONS.index(name)) & (signs == sign), _colour(name, sign * strength))
    for name in UNSIGNED:
        _apply(images, chosen == OPERATIONS.index(name), _colour(name, strength))
    return images


def _apply(images: Tensor, where: Tensor, operation: Callable[[Tensor], Tensor]) -> None:
    group = where.nonzero().flatten().to(images.device)
    if len(group):
        images[group] = operation(images[group])


def geometric_maps(chosen: Tensor, amounts: Tensor) -> Tensor:
    """Maps (B, 2, 3) for `warp` of the geometric operations `chosen` (B,), `amounts` (B,) in -1..1 of their range."""
    maps = torch.eye(2, 3).repeat(len(chosen), 1, 1)
    is_ = {name: chosen == OPERATIONS.index(name) for name in GEOMETRIC}
    for axis, (shear, translate) in enumerate((("shear_x", "translate_x"), ("shear_y", "translate_y"))):
        slope = torch.where(is_[shear], amounts * _SHEAR, 0.0)
        maps[:, axis, 1 - axis] = slope
        # A shear keeps the first row or column in place; a width is two half widths.
        maps[:, axis, 2] = slope - 2 * torch.where(is_[translate], amounts * _TRANSLATE, 0.0)
    angle = torch.where(is_["rotate"], amounts * _ROTATE, 0.0)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    maps[:, :, :2] = torch.where(is_["rotate"].view(-1, 1, 1), turn, maps[:, :, :2])
    return maps


def _colour(name: str, amount: float) -> Callable[[Tensor], Tensor]:
    """A colour operation of torchvision at an amount of -1..1 of its range, on uint8 (B, C, H, W)."""
    from torchvision.transforms.v2 import functional

    operations: dict[str, Callable[[Tensor], Tensor]] = {
        "brightness": lambda images: functional.adjust_brightness(images, 1 + amount * _BLEND),
        "color": lambda images: functional.adjust_saturation(images, 1 + amount * _BLEND),
        "contrast": lambda images: functional.adjust_contrast(images, 1 + amount * _BLEND),
        "sharpness": lambda images: functional.adjust_sharpness(images, 1 + amount * _BLEND),
        "posterize": lambda images: functional.posterize(images, 8 - round(amount * _BITS)),
        "solarize": lambda images: functional.solarize(images, 255 * (1 - amount)),
        "autocontrast": functional.autocontrast,
        "equalize": functional.equalize,
    }
    return operations[name]
