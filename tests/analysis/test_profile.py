"""Every operation has a kind, every multiply-accumulate a part, and shares add up."""

from pathlib import Path

import pytest
import torch
from subjects import subject
from tiny import tiny_vit

from vitexp.analysis.profile import KINDS, Profiled, kind_of, part_of
from vitexp.build import count_macs


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("aten::addmm", "arithmetic"),
        ("aten::mkldnn_convolution", "arithmetic"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "arithmetic"),
        ("aten::native_layer_norm", "normalisation"),
        ("aten::native_batch_norm", "normalisation"),
        ("aten::add_", "element-wise"),
        ("aten::gelu", "element-wise"),
        ("aten::_softmax", "element-wise"),
        ("aten::copy_", "copy"),
        ("aten::cat", "copy"),
        ("aten::transpose", "reshape"),
        ("aten::t", "reshape"),
        ("aten::roll", "reshape"),
        ("aten::never_heard_of_it", "other"),
    ],
)
def test_kinds(operation: str, kind: str) -> None:
    assert kind_of(operation) == kind


def test_parts() -> None:
    model = tiny_vit()
    assert part_of(model.blocks[0].attention) == "attention"
    assert part_of(model.blocks[0].mlp) == "mlp"
    assert part_of(model.blocks[0].norm1) is None
    assert part_of(model.blocks[0].attention.out) is None


def test_a_model_is_profiled(tmp_path: Path) -> None:
    model, analysis = tiny_vit(dim=32, depth=2), Profiled(repeats=2)
    looked = subject(model, count=2)
    measured = analysis.measure(looked)
    tokens, dim = 17, 32
    assert measured.macs["mlp"] == 2 * 2 * 8 * tokens * dim * dim
    assert measured.macs["attention"] == 2 * 2 * (4 * tokens * dim * dim + 2 * tokens * tokens * dim)
    assert sum(measured.macs.values()) == 2 * count_macs(model, (3, 16, 16))
    assert set(measured.kinds) == set(KINDS)
    values = analysis.summary(measured)
    assert sum(values[f"{kind}_share"] for kind in KINDS) == pytest.approx(1.0)
    assert 0.0 < values["memory_bound_share"] < 1.0
    assert measured.parts["attention"] > 0
    assert measured.parts["mlp"] > 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.is_grad_enabled()
    analysis.draw({"trained": measured}, tmp_path / "profile.png", "tiny")
    assert (tmp_path / "profile.svg").is_file()
    assert len(analysis.rows(measured)) == len(KINDS) + 3
