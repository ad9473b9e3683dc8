"""Deep visual prompts: Jia et al., "Visual Prompt Tuning" (ECCV 2022, arXiv 2203.12119), VPT-Deep.

Deviation: the authors send the prompts through each block as tokens and throw their outputs away before the next. As
context they are only keys and values, which gives the other tokens the same values without those queries and MLPs.
Their dropout on prompts (0.1 in some recipes) is left out.
"""

from collections.abc import Mapping

from torch import nn

from vitexp.regime.base import fit_head, freeze, require_tokens, set_rates
from vitexp.regime.memory import add_memory, new_memory


def vpt(
    model: nn.Module,
    *,
    num_classes: int,
    num_tokens: int,
    lr_scale: Mapping[str, float],
    weight_decay: Mapping[str, float | None],
) -> nn.Module:
    """`head` and `num_tokens` prompts a layer train; the class token, if there is one, stays.

    Prompts start at U(-v, v) with v = sqrt(6 / (3 P^2 + D)), as the authors' code has it, P the patch size.
    """
    encoder = require_tokens(model, regime="vpt", class_token=False)
    fit_head(encoder, num_classes)
    freeze(encoder, trained=("head",))
    prompts = new_memory(encoder, num_tokens)
    bound = (6 / (3 * encoder.strides[0] ** 2 + prompts.shape[2])) ** 0.5
    add_memory(encoder, nn.init.uniform_(prompts, -bound, bound), memory_norm=True)
    set_rates(encoder, {"head": ["head."], "memory": ["blocks."]}, lr_scale=lr_scale, weight_decay=weight_decay)
    return encoder
