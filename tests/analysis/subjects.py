"""Subjects that the analyses' tests look at; not a test itself."""

import torch
from torch import nn

from vitexp.analysis.base import Subject


def subject(model: nn.Module, *, count: int = 3, size: int = 16, channels: int = 3, classes: int = 5) -> Subject:
    generator = torch.Generator().manual_seed(5)
    return Subject(
        model=model,
        images=torch.randn(count, channels, size, size, generator=generator),
        labels=torch.arange(count) % classes,
        mean=[0.5] * channels,
        std=[0.25] * channels,
        count_macs=lambda counted: 0,
        trial=lambda changes, epochs=0: 0.0,
    )
