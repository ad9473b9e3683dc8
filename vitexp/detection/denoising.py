"""Query denoising: noised objects as more decoder queries in training (DN-DETR: Li et al., CVPR 2022, section 4).

While a DETR is young, the object that a query answers for changes from step to step. A query that starts from a noised
object has to put that one right, without matching, and so teaches the decoder in the meantime.

Deviations: DETR's queries have no anchors, so a noised box becomes the position of its query through sines and an mlp
(as in DAB-DETR, Liu et al. 2022), and a noised label its content. The tensors for that belong to the task and not to
the model, whose weights, checkpoints and evaluation are those of a DETR without denoising.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitexp.detection.criterion import Criterion
from vitexp.detection.matcher import Target, padded
from vitexp.errors import ConfigError

_TEMPERATURE = 10000.0


class Queries(NamedTuple):
    """N queries after a model's own Q: content x and position (B, N, D), who may see whom (B, 1, Q + N, Q + N)."""

    x: Tensor
    position: Tensor
    mask: Tensor


class Denoising(nn.Module):
    """Objects to `groups` noised copies of them, as queries, and the loss of what became of them.

    Noise is drawn from torch's generator, which a run seeds for each step (vitexp.callback.step_keys).

    Args:
        dim: of the queries, a multiple of 8.
        groups: copies of each object, each with noise of its own; the paper's 5.
        box_noise: a centre moves by up to this share of half a side, a side changes by up to this share of itself.
        label_noise: probability that a label becomes any.

    Raises:
        ConfigError: a number out of its range.
    """

    def __init__(self, *, dim: int, num_classes: int, groups: int, box_noise: float, label_noise: float) -> None:
        super().__init__()
        for name, value in (("box_noise", box_noise), ("label_noise", label_noise)):
            if not 0 <= value <= 1:
                raise ConfigError(f"task.denoising.{name}={value} is no share; it goes from 0 to 1; use 0.4")
        if groups < 1 or dim % 8:
            raise ConfigError(
                f"task.denoising.groups={groups} with model.dim={dim} is not possible; groups are 0 (off) or more, and "
                "denoising needs a dim that is a multiple of 8; use task.denoising.groups=5"
            )
        self.dim, self.groups, self.box_noise, self.label_noise = dim, groups, box_noise, label_noise
        self.labels = nn.Embedding(num_classes, dim)
        self.boxes = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, targets: Sequence[Target], num_queries: int) -> Queries:
        """The queries of a batch for a model with `num_queries` of its own: T slots a group, N = groups * T.

        T is the most objects of an image and at least 1; slots without an object are seen by none and have no loss.
        """
        labels, boxes = padded(targets)  # (B, T), (B, T, 4)
        if not labels.shape[1]:
            labels, boxes = labels.new_zeros(len(labels), 1), boxes.new_zeros(len(labels), 1, 4)
        noised_labels, noised_boxes = self.noised(labels.repeat(1, self.groups), boxes.repeat(1, self.groups, 1))
        position = self.boxes(_sines(noised_boxes, self.dim // 2))  # (B, N, D)
        return Queries(self.labels(noised_labels), position, self.mask(targets, num_queries))

    def noised(self, labels: Tensor, boxes_cxcywh: Tensor) -> tuple[Tensor, Tensor]:
        """Labels (...) and boxes (..., 4) with noise; boxes stay within the image's sides."""
        any_label = torch.randint_like(labels, self.labels.num_embeddings)
        hit = torch.rand(labels.shape, device=labels.device) < self.label_noise
        side = boxes_cxcywh[..., 2:]
        reach = self.box_noise * torch.cat([side / 2, side], dim=-1)
        moved = boxes_cxcywh + (2 * torch.rand_like(boxes_cxcywh) - 1) * reach
        return torch.where(hit, any_label, labels), moved.clamp(0, 1)

    def mask(self, targets: Sequence[Target], num_queries: int) -> Tensor:
        """True = may attend, (B, 1, Q + N, Q + N): all see the model's own queries, and a group sees itself."""
        real = self._real(targets)  # (B, N)
        slots = real.shape[1] // self.groups
        group = torch.arange(self.groups, device=real.device).repeat_interleave(slots)
        group = torch.cat([group.new_full((num_queries,), -1), group])  # -1: the model's own
        may = (group[:, None] == group) | (group == -1)  # (Q + N, Q + N)
        seen = torch.cat([real.new_ones(len(real), num_queries), real], dim=1)
        return may & seen[:, None, None]

    def loss(self, logits: Tensor, boxes_cxcywh: Tensor, targets: Sequence[Target], criterion: Criterion) -> Tensor:
        """All layers' losses with the weights of `criterion`, each query's object its own; a mean over objects.

        Args:
            logits: (L, B, N, K + 1) of the N queries.
            boxes_cxcywh: (L, B, N, 4).
            targets: as they went into `forward`.
            criterion: of the task; its matcher is not asked.
        """
        real = self._real(targets)
        wanted = {
            name: torch.cat([target[name].repeat(self.groups, *[1] * (target[name].ndim - 1)) for target in targets])
            for name in ("labels", "boxes_cxcywh")
        }  # by image, then by group, as `real` counts
        layers, queries = len(logits), len(wanted["labels"])
        number = torch.arange(queries, device=logits.device).repeat(layers)
        layer = torch.arange(layers, device=logits.device).repeat_interleave(queries)
        matched = torch.stack([layer, torch.zeros_like(layer), number, number])
        found = logits[:, real][:, None], boxes_cxcywh[:, real][:, None]  # all as if of one image
        return criterion.weigh(criterion.parts(*found, [wanted], matched))

    def _real(self, targets: Sequence[Target]) -> Tensor:
        """True where a slot holds an object: (B, N)."""
        device = targets[0]["labels"].device
        counts = torch.tensor([len(target["labels"]) for target in targets], device=device)
        slots = torch.arange(max(int(counts.max()), 1), device=device)
        return (slots < counts[:, None]).repeat(1, self.groups)


def _sines(boxes_cxcywh: Tensor, channels: int) -> Tensor:
    """Sines and cosines of each coordinate, `channels` of both together: (..., 4) -> (..., 4 * channels)."""
    waves = _TEMPERATURE ** (torch.arange(channels // 2, device=boxes_cxcywh.device) * 2 / channels)
    angles = boxes_cxcywh[..., None] * (2 * math.pi) / waves
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)
