"""The features of a frozen model, computed once: the parts that train beside it then train on them.

Only where nothing random stands before it: no augmentation, and the frozen part in eval mode. Then the result is that
of training on images, up to the rounding of sums in other batches, and a step costs what its trained part costs.
"""

from collections.abc import Iterable
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from vitexp.errors import ConfigError, ResourceError
from vitexp.machine.memory import free_on

# What of an augmentation draws random numbers, and the value at which it does not.
_STILL = {"geometry": "none", "randaugment_ops": 0, "erasing_rate": 0, "mixup": 0, "cutmix": 0}
# How much of the free memory may be filled; the rest is for the steps.
_SHARE = 0.9


def require_still(augment: Any) -> None:
    """Raise ConfigError if an augmentation changes images from epoch to epoch."""
    moving = [
        f"augment.{key}={getattr(augment, key)}" for key, value in _STILL.items() if getattr(augment, key) != value
    ]
    moving += ["the augmentation's own change"] if augment.changes else []
    if moving:
        raise ConfigError(
            f"regime.cache=true computes the features of each image once, and {', '.join(moving)} changes the images "
            "in every epoch; it needs images as they are; use augment=none, or regime.cache=false"
        )


class Embed(Callback):
    """Put the features of the splits `train` and `val` where the data module looks for them, before the first step."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compute the features now, for the loaders are made before the fit starts."""
        if stage != "fit":
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        model: Any = pl_module.model.to(trainer.strategy.root_device)
        counts = {split: count for split in ("train", "val") if (count := len(data.source(split)))}
        waiting = sum(counts.values())
        for split, count in counts.items():
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                data.features[split] = embed(model, data.ordered_batches(split), count=count, room_for=waiting)
            waiting -= count


def embed(model: Any, batches: Iterable[tuple[Tensor, Tensor]], *, count: int, room_for: int) -> tuple[Tensor, Tensor]:
    """Features (count, F) of the images of `batches` by the frozen part of `model`, in eval mode, and the labels.

    Args:
        model: of a regime with `cache`: `embed_frozen(images)` gives (B, F).
        batches: pairs of images and labels.
        count: images in all batches.
        room_for: images that must find room in memory, these and others after them.

    Raises:
        ResourceError: they do not.
    """
    mode, start = model.training, 0
    model.eval()
    all_features: Tensor | None = None
    all_labels: list[Tensor] = []
    for images, labels in batches:
        features = model.embed_frozen(images)
        if all_features is None:
            _require_room(features[0].nbytes, room_for, features.device)
            all_features = features.new_empty(count, *features.shape[1:])
        all_features[start : start + len(features)] = features
        start += len(features)
        all_labels.append(labels)
    model.train(mode)
    assert all_features is not None, "a split without images is not embedded"
    assert start == count
    return all_features, torch.cat(all_labels)


def _require_room(size: int, count: int, device: torch.device) -> None:
    """Raise ResourceError unless `count` images of `size` bytes fit into what is free on a device."""
    free = free_on(device)
    if size * count > _SHARE * free:
        gigabytes = f"{size * count / 1e9:.3g} GB"
        raise ResourceError(
            f"regime.cache=true keeps {size / 1e3:,.1f} kB for each of {count:,} images, {gigabytes} in all, and "
            f"{free / 1e9:.3g} GB of memory are free, of which {_SHARE:.0%} may be filled; lower size=, take a smaller "
            "model=, fewer images or precision=bf16, or use regime.cache=false"
        )
