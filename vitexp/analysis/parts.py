"""Marks for when a model is inside an attention and when inside an MLP, forward and backward."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn


def part_of(module: nn.Module) -> str | None:
    """Attention for what stands in vitexp.attention, mlp for a class of that name; None for anything else."""
    if type(module).__module__.startswith("vitexp.attention.") and hasattr(module, "num_heads"):
        return "attention"
    return "mlp" if type(module).__name__.endswith("Mlp") else None


def parts_of(model: nn.Module) -> dict[str, nn.Module]:
    """Attentions and MLPs by name; one inside another is the outer one's."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if not inside and part_of(module) is not None:
            found[name] = module
    return found


@contextmanager
def passing(model: nn.Module, enter: Callable[[str], None], leave: Callable[[str], None]) -> Iterator[None]:
    """Call `enter(part)` and `leave(part)` around each attention and MLP, forward and, where a gradient flows, back.

    Back: from the moment when the gradient of its output is known to that when the gradient of its input is. So what
    only its bias or mask needs counts as the rest.
    """

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        enter(str(part_of(module)))

    def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        part = str(part_of(module))
        leave(part)
        ends = (output, inputs[0] if inputs else None)
        if all(isinstance(end, Tensor) and end.requires_grad for end in ends):
            output.register_hook(lambda gradient: enter(part))
            inputs[0].register_hook(lambda gradient: leave(part))

    with ExitStack() as stack:
        for module in parts_of(model).values():
            stack.callback(module.register_forward_pre_hook(before).remove)
            stack.callback(module.register_forward_hook(after).remove)
        yield
