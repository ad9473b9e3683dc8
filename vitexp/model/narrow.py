"""A model with fewer channels inside its attentions and MLPs than its configuration says: what pruning leaves.

Queries and keys of a head lose the same channels, values and the rows that read them too, and an MLP hidden ones;
every head of a block keeps equally many, so that heads stay one batch. Widths of tokens do not change.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitexp.attention.base import DenseAttention, flags_of
from vitexp.errors import ConfigError
from vitexp.layer.mlp import Mlp

UNITS = ("qk", "v", "hidden")


class Narrow:
    """Give layers of a new model the widths of a pruned one, before its weights are loaded.

    Args:
        layers: one entry each: `name` of the module, and the channels a head `qk` and `v` of an attention, or
            `hidden` of an MLP.
    """

    def __init__(self, *, layers: Sequence[dict[str, Any]]) -> None:
        self.layers = layers

    def __call__(self, model: nn.Module) -> None:
        """Narrow in place. Raises ConfigError where a named layer is absent or no such layer."""
        modules = dict(model.named_modules())
        for layer in self.layers:
            module = modules.get(layer["name"])
            if isinstance(module, DenseAttention):
                qk, v = (torch.arange(layer[kind]).expand(module.num_heads, -1) for kind in ("qk", "v"))
                slice_attention(module, qk, v)
            elif isinstance(module, Mlp):
                slice_mlp(module, torch.arange(layer["hidden"]))
            else:
                raise ConfigError(
                    f"the weights were pruned in {layer['name']}, which this {type(model).__name__} has not as an"
                    " attention with a map or an MLP; use the model= that was pruned"
                )


def prunable(model: nn.Module) -> dict[str, DenseAttention | Mlp]:
    """The layers that can be narrowed, by name."""
    layers = {n: m for n, m in model.named_modules() if isinstance(m, DenseAttention | Mlp)}
    return {name: layer for name, layer in layers.items() if flags_of(layer).narrows}


@torch.no_grad()
def slice_attention(attention: DenseAttention, qk: Tensor, v: Tensor) -> None:
    """Keep channels `qk` (H, m) of each head's queries and keys and `v` (H, n) of its values, in place."""
    heads, narrow, wide = attention.num_heads, attention.head_dim, attention.value_dim
    query_rows = (qk + torch.arange(heads)[:, None] * narrow).flatten()  # (H m,)
    value_rows = (v + torch.arange(heads)[:, None] * wide).flatten()  # (H n,)
    projection = attention.qkv_projection
    rows = torch.cat([query_rows, query_rows + heads * narrow, value_rows + 2 * heads * narrow])
    for name, kept in (("weight", rows), ("bias", rows), ("q_bias", query_rows), ("v_bias", value_rows)):
        _keep(projection, name, kept, axis=0)
    projection.out_features = len(rows)
    _keep(attention.out, "weight", value_rows, axis=1)
    attention.out.in_features = len(value_rows)
    attention.head_dim, attention.value_dim = qk.shape[1], v.shape[1]


@torch.no_grad()
def slice_mlp(mlp: Mlp, hidden: Tensor) -> None:
    """Keep the hidden channels `hidden` (m,), in place."""
    _keep(mlp.fc1, "weight", hidden, axis=0)
    _keep(mlp.fc1, "bias", hidden, axis=0)
    _keep(mlp.fc2, "weight", hidden, axis=1)
    mlp.fc1.out_features = mlp.fc2.in_features = len(hidden)


def _keep(module: nn.Module, name: str, kept: Tensor, *, axis: int) -> None:
    tensor = dict(module.named_parameters(recurse=False)).get(name)
    if tensor is not None:
        sliced = tensor.index_select(axis, kept.to(tensor.device)).contiguous()
        setattr(module, name, nn.Parameter(sliced, requires_grad=tensor.requires_grad))
