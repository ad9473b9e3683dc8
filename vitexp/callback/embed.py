"""Cached features: what a frozen model makes of the images is computed once, and its head trains on that.

Only where nothing random stands before the head: no augmentation, and all but the head frozen, in eval mode. Then the
result is that of training on images, up to the rounding of sums in other batches, and a step costs what the head costs.
"""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from vitexp.errors import ConfigError

# What of an augmentation draws random numbers, and the value at which it does not.
_STILL = {"geometry": "none", "randaugment_ops": 0, "erasing_rate": 0, "mixup": 0, "cutmix": 0}


def require_still(augment: Any) -> None:
    """Raise ConfigError if an augmentation changes images from epoch to epoch."""
    moving = [
        f"augment.{key}={getattr(augment, key)}" for key, value in _STILL.items() if getattr(augment, key) != value
    ]
    if moving:
        raise ConfigError(
            f"regime.cache=true computes the features of each image once, and {', '.join(moving)} changes the images "
            "in every epoch; it needs images as they are; use augment=none, or regime.cache=false"
        )


class Embed(Callback):
    """Before the first step, put the features of the splits `train` and `val` where the data module looks for them."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Not later: the number of steps is asked for, and with it the loaders made, before the fit starts."""
        if stage != "fit":
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        model: Any = pl_module.model.to(trainer.strategy.root_device)
        for split in ("train", "val"):
            if len(data.source(split)):
                with torch.no_grad(), trainer.precision_plugin.forward_context():
                    data.features[split] = embed(model, data.ordered_batches(split))


def embed(model: Any, batches: Any) -> tuple[Tensor, Tensor]:
    """What the head of `model` is given (N, D), and the labels, for all images of `batches`, in eval mode."""
    head, mode = model.head, model.training
    model.eval()
    model.head = nn.Identity()
    try:
        pairs = [(model(images), labels) for images, labels in batches]
    finally:
        model.head = head
        model.train(mode)
    features, labels = zip(*pairs, strict=True)
    return torch.cat(features), torch.cat(labels)
