"""A fingerprint knows tensors by name, type, shape and value, and not the head."""

import pytest
import torch

from tests.tiny import tiny_vit
from vitexp.checkpoint.fingerprint import digest, fingerprint

TENSORS = {"b": torch.arange(4.0), "a": torch.ones(2, dtype=torch.int64)}


def test_order_and_layout_do_not_matter() -> None:
    assert digest(dict(reversed(TENSORS.items()))) == digest(TENSORS)
    turned = torch.arange(6.0).view(2, 3).T
    assert digest({"a": turned}) == digest({"a": turned.contiguous()})
    assert len(digest({})) == 64


@pytest.mark.parametrize(
    "change",
    [
        {"b": torch.tensor([0.0, 1, 2, 4])},
        {"b": torch.arange(4.0).view(2, 2)},
        {"b": torch.arange(4.0).view(torch.int32)},
        {"c": torch.zeros(0)},
    ],
    ids=["value", "shape", "type", "name"],
)
def test_every_difference_is_seen(change: dict[str, torch.Tensor]) -> None:
    assert digest(TENSORS | change) != digest(TENSORS)


def test_without_values_names_and_shapes_count() -> None:
    shapes = [digest({name: torch.empty(2, side, device="meta")}) for name in "ab" for side in (2, 3)]
    assert len(set(shapes)) == 4


def test_a_model_is_its_tensors_without_the_head() -> None:
    model = tiny_vit()
    before = fingerprint(model)
    with torch.no_grad():
        model.head.weight.add_(1)
    assert fingerprint(model) == before
    with torch.no_grad():
        model.norm.weight.add_(1)
    assert fingerprint(model) != before
