"""Parameter groups: what decays, and how the learning rate falls off towards the stem.

Only weights of linear and convolution layers decay; biases, norms, tokens, position tables and every other free
parameter do not (as the ViT, Swin and BEiT recipes have it), nor does any weight below a module that says
`undecayed = True`. Layer decay is BEiT's (Bao et al., arXiv 2106.08254, appendix): block i of L learns at
`layer_decay ** (L + 1 - i)` times the rate, the head at the full rate. Blocks of a pyramid count through its stages;
what else stands in a stage goes with the block before it (as in Swin V2's recipe), a stage without blocks is one layer.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from vitexp.contract import HasBase, Undecayed
from vitexp.errors import ConfigError

_DEPTH = re.compile(r"(?:^|\.)(?:blocks|stages)\.(\d+)\.")
_STAGE = re.compile(r"(?:^|\.)stages\.(\d+)\.(?:blocks\.(\d+)\.)?")
_TOP = re.compile(r"^(?:norm|head|attention_pool)\b")


def parameter_groups(
    model: nn.Module, *, lr: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """The trainable parameters as optimizer groups, each with `params`, `names`, `lr` and `weight_decay`.

    A regime may have left `model.rates`: name -> (share of `lr`, weight decay, or None for the rule here). Such a
    parameter learns at that rate at any depth.

    Args:
        model: only parameters with `requires_grad` are taken.
        lr: rate of the head.
        weight_decay: of the decaying weights; the rest gets 0.
        layer_decay: factor from one layer to the one below it; 1 is off.

    Raises:
        ConfigError: nothing is trainable.
    """
    decaying = _decaying(model)
    depths = _block_counts(name for name, _ in model.named_parameters())
    last = _num_layers(model, depths)
    rates = model.rates if isinstance(model, HasBase) else {}
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = weight_decay if name in decaying else 0.0
        rate = lr * layer_decay ** (last - layer_of(name, last, depths))
        if name in rates:
            rate = lr * rates[name][0]
            own = rates[name][1]
            decay = decay if own is None else own
        group = groups.setdefault((rate, decay), {"params": [], "names": [], "lr": rate, "weight_decay": decay})
        group["params"].append(parameter)
        group["names"].append(name)
    if not groups:
        raise ConfigError("no parameter is trainable: the regime froze everything; use regime=full or regime=head")
    return list(groups.values())


def backbone_groups(model: nn.Module, *, lr: float, weight_decay: float, backbone_rate: float) -> list[dict[str, Any]]:
    """Two groups, as DETR trains: `backbone`, at `backbone_rate` times the rate, then all else; both decay wholly.

    Raises:
        ConfigError: nothing is trainable.
    """
    split: dict[bool, list[tuple[str, nn.Parameter]]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            split[name.startswith("backbone.")].append((name, parameter))
    if not (split[True] or split[False]):
        raise ConfigError("no parameter is trainable: the regime froze everything; use regime=full or regime=head")
    return [
        {
            "params": [parameter for _, parameter in members],
            "names": [name for name, _ in members],
            "lr": lr * backbone_rate if inside else lr,
            "weight_decay": weight_decay,
        }
        for inside, members in split.items()
        if members
    ]


def layer_of(name: str, last: int, depths: Mapping[int, int] | None = None) -> int:
    """Depth of a parameter by its name: 0 for the stem, i + 1 for block i, `last` for norm, pooling and head.

    Args:
        name: in the model.
        last: the number of layers.
        depths: number of blocks of each stage of a pyramid, 0 for a stage without any; None for a model without stages.
    """
    if _TOP.match(name):
        return last
    if depths and (staged := _STAGE.search(name)):
        stage, block = int(staged[1]), staged[2]
        below = sum(max(count, 1) for earlier, count in depths.items() if earlier < stage)
        return below + (int(block) + 1 if block else not depths.get(stage))
    found = _DEPTH.search(name)
    return int(found.group(1)) + 1 if found else 0


def _block_counts(names: Iterable[str]) -> dict[int, int]:
    """Blocks of each stage."""
    counts: dict[int, int] = {}
    for name in names:
        if staged := _STAGE.search(name):
            stage, blocks = int(staged[1]), int(staged[2]) + 1 if staged[2] else 0
            counts[stage] = max(counts.get(stage, 0), blocks)
    return counts


def _num_layers(model: nn.Module, depths: Mapping[int, int]) -> int:
    return max((layer_of(name, 0, depths) for name, _ in model.named_parameters()), default=0) + 1


def _decaying(model: nn.Module) -> set[str]:
    exempt = tuple(f"{prefix}." for prefix, module in model.named_modules() if isinstance(module, Undecayed))
    weights = {
        f"{prefix}.weight" if prefix else "weight"
        for prefix, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
    }
    return {name for name in weights if not name.startswith(exempt)}
