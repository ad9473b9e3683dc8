"""A set of tensors as one word, to know a frozen base, or a task, again."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vitexp.layer.head import head_names


def fingerprint(model: nn.Module) -> str:
    """The digest of all tensors of a model but the head's, which every task replaces."""
    head = set(head_names(model))
    return digest({name: tensor for name, tensor in model.state_dict().items() if name not in head})


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, in the order of the names."""
    running = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        running.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.device.type != "meta":
            running.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return running.hexdigest()
