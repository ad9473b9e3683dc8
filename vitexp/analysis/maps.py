"""The attention maps and block outputs of a model while it runs, shown to a consumer and kept nowhere.

The model runs as it always does, by its fused kernels: each attention that has a map computes it once more, by the
contract's `maps`, and hands it on. So no model and no attention carries a flag, and memory holds one map at a time.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from vitexp.attention.base import DenseAttention
from vitexp.contract import SEE, HasGrid, SupportsMaps, SupportsTokens
from vitexp.errors import ConfigError

# (number of the attention call in this forward, maps by name, each (B, H, N, N + M)); Swin: B is images x windows.
OnMaps = Callable[[int, dict[str, Tensor]], None]
# (number of the block, its output as tokens (B, N, D))
OnOutput = Callable[[int, Tensor], None]


def attentions(model: nn.Module) -> dict[str, nn.Module]:
    """The attentions of a model that have a map, by name, in its order.

    Raises:
        ConfigError: none has.
    """
    names = [name for name, module in model.named_modules() if isinstance(module, SupportsMaps)]
    found = {name: model.get_submodule(name) for name in names}
    if not found:
        raise ConfigError(
            f"this analysis reads attention maps and no attention of this {type(model).__name__} has one; it needs an"
            " attention with a map; use a model with attention=softmax, cosine or reattention, or analysis=amplitude"
            f" (SupportsMaps: {SEE})"
        )
    return found


def grid_of(model: nn.Module) -> tuple[tuple[int, int] | None, int]:
    """(rows, columns) of a model's tokens, None where it does not say, and how many stand before those of the grid."""
    grid = model.grid if isinstance(model, HasGrid) else None
    return grid, model.num_prefix if isinstance(model, SupportsTokens) else 0


def blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The blocks of a model by name, in its order: what its modules called `blocks` hold, else its stages.

    Raises:
        ConfigError: it has neither.
    """
    for word in ("blocks", "stages"):
        holders = [(name, module) for name, module in model.named_modules() if name.rsplit(".", 1)[-1] == word]
        found = {f"{name}.{key}": child for name, module in holders for key, child in module.named_children()}
        if found:
            return found
    raise ConfigError(
        f"this analysis goes block by block and {type(model).__name__} has no blocks and no stages; it needs a model"
        " with one of them; use model=vit_* or model=swinv2*"
    )


@torch.no_grad()
def look(model: nn.Module, images: Tensor, on_maps: OnMaps | None = None, on_output: OnOutput | None = None) -> Tensor:
    """Run the model in evaluation and show what happens inside.

    Args:
        model: as it stands; comes back in the mode it was in.
        images: (B, C, H, W).
        on_maps: called at each attention that has a map, in the order in which they run.
        on_output: called with each block's output, as tokens, in the order in which they run.

    Returns:
        What the model returns, the same as without a consumer.
    """
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        if on_maps is not None:
            stack.enter_context(_shown_maps(model, on_maps))
        if on_output is not None:
            stack.enter_context(_shown_outputs(model, on_output))
        out: Tensor = model.forward(images)  # not model(): that runs the compiled graph, which sees no consumer
    return out


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; each module's own mode after (what is frozen stays as it was)."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def replaced(module: nn.Module, method: str, function: Callable[..., Any]) -> Iterator[None]:
    """Let one instance answer `method` by another function."""
    module.__dict__[method] = function
    try:
        yield
    finally:
        del module.__dict__[method]


@contextmanager
def _shown_maps(model: nn.Module, consume: OnMaps) -> Iterator[None]:
    calls = count()
    with ExitStack() as stack:
        for module in attentions(model).values():
            if isinstance(module, DenseAttention):
                stack.enter_context(replaced(module, "attend", _shown_attend(module, consume, calls)))
            else:
                hook = module.register_forward_pre_hook(_shown_input(consume, calls))
                stack.callback(hook.remove)
        yield


def _shown_attend(module: DenseAttention, consume: OnMaps, calls: Iterator[int]) -> Callable[..., Tensor]:
    attend = module.attend

    def shown(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        consume(next(calls), module.maps(q, k, mask, bias))
        return attend(q, k, v, mask, bias)

    return shown


def _shown_input(consume: OnMaps, calls: Iterator[int]) -> Callable[[Any, Any], None]:
    """Maps of an attention that is no DenseAttention: its `maps` takes its input and gives one, or several by name."""

    def shown(module: SupportsMaps, inputs: tuple[Tensor, ...]) -> None:
        maps = module.maps(inputs[0])
        consume(next(calls), maps if isinstance(maps, dict) else {"softmax": maps})

    return shown


@contextmanager
def _shown_outputs(model: nn.Module, consume: OnOutput) -> Iterator[None]:
    with ExitStack() as stack:
        for index, block in enumerate(blocks(model).values()):

            def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, index: int = index) -> None:
                consume(index, as_tokens(module, output))

            stack.callback(block.register_forward_hook(hook).remove)
        yield


def as_tokens(block: nn.Module, output: Tensor) -> Tensor:
    """A block's output as (B, N, D): blocks with convolutions keep maps (B, D, h, w), others (B, ..., D)."""
    if output.ndim == 4 and any(isinstance(module, nn.Conv2d) for module in block.modules()):
        return output.flatten(2).transpose(1, 2)
    return output.flatten(1, -2)
