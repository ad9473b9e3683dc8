"""Concatenation: independently trained masked memories joined on their base (Sandler et al. 2022, section 3.2, Fig. 3).

Nothing trains. A task that was trained on top of others (`extension`) reads them here as it did then.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vitexp.checkpoint.adapter import BASE, Adapter, read_adapter, require_base
from vitexp.errors import CheckpointError
from vitexp.model.encoder import TokenEncoder
from vitexp.regime.base import require_tokens
from vitexp.regime.masked import MaskedMemory, TaskMemory


def concat(model: nn.Module, *, num_classes: int, adapters: Sequence[str]) -> nn.Module:
    """The base with the tasks of `adapters` (files, or folders of runs), in their order; `num_classes` is theirs."""
    encoder = require_tokens(model, regime="concat", mask=True)
    found = [read_adapter(source) for source in adapters]
    joined = join(encoder, found).requires_grad_(False)
    for adapter in found:
        require_base(joined, str(adapter.about[BASE]), adapter.path)
    return joined


def join(encoder: TokenEncoder, adapters: Sequence[Adapter], added: Sequence[TaskMemory] = ()) -> MaskedMemory:
    """The encoder with the tasks of adapters, then `added` ones, which read all before them."""
    digests = [adapter.digest for adapter in adapters]
    reads = [_places(adapter, digests[:index]) for index, adapter in enumerate(adapters)]
    tasks = [task_of(encoder, adapter) for adapter in adapters]
    for task in added:
        reads.append(list(range(len(tasks))))
        tasks.append(task)
    flags = {bool(adapter.about["memory_norm"]) for adapter in adapters}
    if len(flags) > 1:
        raise CheckpointError(
            f"memory_norm differs among {', '.join(str(a.path) for a in adapters)}; memories are joined with one "
            "setting; train them alike"
        )
    names = [Path(adapter.path).stem for adapter in adapters] + [str(len(adapters) + i) for i in range(len(added))]
    return MaskedMemory(encoder, tasks=tasks, names=names, reads=reads, memory_norm=flags.pop())


def task_of(encoder: TokenEncoder, adapter: Adapter) -> TaskMemory:
    """The task in an adapter of `memory_masked` or `extension`."""
    tensors: dict[str, Tensor] = {name.split(".", 2)[-1]: tensor for name, tensor in adapter.tensors.items()}
    depth, dim = len(encoder.blocks), len(encoder.norm.weight)
    expected = {"class_token", "memory", "head.weight", "head.bias"}
    if tensors.keys() != expected or tensors["memory"].shape[::2] != (depth, dim):
        given = f"{tuple(tensors['memory'].shape)} memory" if "memory" in tensors else ", ".join(list(tensors)[:3])
        raise CheckpointError(
            f"{adapter.path} has {given}, and the base has {depth} layers of width {dim}; concat joins masked memories "
            "of one base; use the model= that they were trained on"
        )
    if whole := [name for name, tensor in tensors.items() if not tensor.is_floating_point()]:
        raise CheckpointError(f"{adapter.path}: {whole[0]} holds whole numbers, which nothing trains; copy it again")
    classes = len(tensors["head.bias"])
    head = nn.Linear(dim, classes)
    with torch.no_grad():
        head.weight.copy_(tensors["head.weight"])
        head.bias.copy_(tensors["head.bias"])
    like = encoder.norm.weight
    task = TaskMemory(class_token=tensors["class_token"], memory=tensors["memory"], head=head)
    return task.to(device=like.device, dtype=like.dtype)


def _places(adapter: Adapter, before: Sequence[str]) -> list[int]:
    """The places, among the tasks before an adapter, of those that it reads."""
    earlier: list[str] = adapter.about["earlier"]
    if missing := [digest for digest in earlier if digest not in before]:
        raise CheckpointError(
            f"{adapter.path} was trained on top of {len(earlier)} earlier tasks and {len(missing)} of them do not "
            "stand before it; name them first, in the order of their training"
        )
    return [before.index(digest) for digest in earlier]
