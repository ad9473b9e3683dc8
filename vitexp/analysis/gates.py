"""Gates on the channels that pruning may take: 1 keeps, 0 removes, and dL/dgate says what removing would cost.

At gate 1, dL/dg is the sum over the channel's weights and bias of weight times gradient (Molchanov et al.,
"Importance Estimation for Neural Network Pruning", CVPR 2019). Queries and keys each have a gate, because in cosine
attention the two derivatives differ; their mean is the effect of taking the pair.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.analysis.maps import evaluating, replaced
from vitexp.attention.base import DenseAttention
from vitexp.layer.mlp import Mlp
from vitexp.model.narrow import prunable

Unit = tuple[str, str]  # (name of the layer, qk, v or hidden)
Gates = dict[Unit, Tensor]  # qk and v: (H, d); hidden: (m,)


def open_gates(model: nn.Module) -> Gates:
    """All gates of a model at 1, in the number format of its weights."""
    gates: Gates = {}
    for name, layer in prunable(model).items():
        if isinstance(layer, Mlp):
            gates[name, "hidden"] = torch.ones_like(layer.fc1.weight[:, 0].detach())
        else:
            like = layer.qkv_projection.weight.detach()
            gates[name, "qk"] = like.new_ones(layer.num_heads, layer.head_dim)
            gates[name, "v"] = like.new_ones(layer.num_heads, layer.value_dim)
    return gates


@contextmanager
def gated(model: nn.Module, gates: Gates, keys: Gates | None = None) -> Iterator[None]:
    """The model with its channels multiplied by the gates; `keys` has the gates of keys where they are others."""
    with ExitStack() as stack:
        for name, layer in prunable(model).items():
            if isinstance(layer, Mlp):
                hook = layer.fc2.register_forward_pre_hook(_gated_input(gates[name, "hidden"]))
                stack.callback(hook.remove)
            else:
                qk, v = gates[name, "qk"], gates[name, "v"]
                k = qk if keys is None else keys[name, "qk"]
                stack.enter_context(replaced(layer, "attend", _gated_attend(layer, qk, k, v)))
        yield


def derivatives(model: nn.Module, gates: Gates, images: Tensor, labels: Tensor) -> Gates:
    """dL/dgate of each channel for one batch, L the mean cross-entropy, in evaluation."""
    free = {unit: gate.clone().requires_grad_() for unit, gate in gates.items()}
    keys = {unit: gate.clone().requires_grad_() for unit, gate in gates.items() if unit[1] == "qk"}
    with evaluating(model), gated(model, free, keys), torch.enable_grad():
        loss = F.cross_entropy(model.forward(images), labels)
        found = iter(torch.autograd.grad(loss, [*free.values(), *keys.values()]))
    slopes = {unit: next(found) for unit in free}
    return slopes | {unit: (slopes[unit] + next(found)) / 2 for unit in keys}


def unit_macs(model: nn.Module, image: Tensor) -> dict[Unit, int]:
    """Multiply-accumulates of one channel (of one channel a head, for attentions) for one image (1, C, S, S)."""
    costs: dict[Unit, int] = {}
    with torch.no_grad(), evaluating(model), ExitStack() as stack:
        for name, layer in prunable(model).items():
            if isinstance(layer, Mlp):
                hook = layer.register_forward_pre_hook(_counted_input(costs, name))
                stack.callback(hook.remove)
            else:
                stack.enter_context(replaced(layer, "attend", _counted_attend(layer, costs, name)))
        model.forward(image)
    return costs


def _gated_input(gate: Tensor) -> Callable[[Any, Any], tuple[Tensor]]:
    return lambda module, inputs: (inputs[0] * gate,)


def _gated_attend(layer: DenseAttention, qk: Tensor, k_gate: Tensor, v_gate: Tensor) -> Callable[..., Tensor]:
    attend = layer.attend

    def attend_gated(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        return attend(q * qk[:, None], k * k_gate[:, None], v * v_gate[:, None], mask, bias)

    return attend_gated


def _counted_input(costs: dict[Unit, int], name: str) -> Callable[[Any, Any], None]:
    def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x: Tensor = inputs[0]
        costs[name, "hidden"] = 2 * x.numel()  # each hidden channel reads every value of x and writes as many

    return count


def _counted_attend(layer: DenseAttention, costs: dict[Unit, int], name: str) -> Callable[..., Tensor]:
    attend, dim = layer.attend, layer.out.out_features

    def count(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        sequences, heads, queries, keys = q.shape[0], q.shape[1], q.shape[2], k.shape[2]
        costs[name, "qk"] = sequences * heads * ((queries + keys) * dim + queries * keys)
        costs[name, "v"] = sequences * heads * ((queries + keys) * dim + queries * keys)
        return attend(q, k, v, mask, bias)

    return count
