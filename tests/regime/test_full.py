"""Full fine-tuning: every parameter moves in one step, and the head fits the data."""

import torch

from tests.tiny import tiny_vit
from vitexp.regime.full import full


def test_every_parameter_trains_and_moves() -> None:
    torch.manual_seed(0)
    model = full(tiny_vit(), num_classes=3)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):  # a new head starts at zero: what is below it moves from the second step on
        optimizer.zero_grad()
        images = torch.randn(4, 3, *model.image_size)
        torch.nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
    still = [
        name for name, parameter in model.named_parameters() if torch.equal(parameter, before.get(name, parameter))
    ]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not [name for name in still if not name.startswith("head")]


def test_the_head_fits_the_data_and_starts_at_zero() -> None:
    model = full(tiny_vit(), num_classes=7)
    assert model.num_classes == 7
    assert not model.head.weight.any()
