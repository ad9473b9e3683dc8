"""Parts are entered and left in pairs, forward and back, and the model is left as it was."""

import torch

from tests.analysis.subjects import subject
from tests.tiny import tiny_vit
from vitexp.analysis.parts import part_of, parts_of, passing
from vitexp.attention.cosine import KeylessBias


def test_parts() -> None:
    model = tiny_vit()
    assert part_of(model.blocks[0].attention) == "attention"
    assert part_of(model.blocks[0].mlp) == "mlp"
    assert part_of(model.blocks[0].norm1) is None
    assert part_of(KeylessBias(8)) is None, "stands beside the attentions and is none"
    counted = torch.nn.Identity()
    counted.num_heads = 2
    assert part_of(counted) is None
    assert part_of(model.blocks[0].attention.out) is None
    assert list(parts_of(model)) == [f"blocks.{i}.{word}" for i in range(2) for word in ("attention", "mlp")]


def walked(model: torch.nn.Module, *, backward: bool) -> list[str]:
    steps: list[str] = []
    with passing(model, lambda part: steps.append(f"+{part}"), lambda part: steps.append(f"-{part}")):
        out = model(subject(model).images)
        if backward:
            out.sum().backward()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    return steps


def test_forward_and_back_in_pairs() -> None:
    there = ["+attention", "-attention", "+mlp", "-mlp"] * 2
    back = ["+mlp", "-mlp", "+attention", "-attention"] * 2
    assert walked(tiny_vit(), backward=False) == there
    assert walked(tiny_vit(), backward=True) == there + back


def test_what_no_gradient_passes_is_not_walked_back() -> None:
    model = tiny_vit().requires_grad_(False)
    model.head.requires_grad_(True)
    assert walked(model, backward=True) == ["+attention", "-attention", "+mlp", "-mlp"] * 2
