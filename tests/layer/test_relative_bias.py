"""Biases of relative positions: the authors' numbers, and a kept bias that is never stale."""

import copy

import pytest
import torch

from vitexp.errors import ConfigError
from vitexp.layer.relative_bias import KINDS, offset_coordinates, pair_index, relative_bias, resize_table


def build(kind="cpb_log", window=(3, 4), pretrained=None):
    torch.manual_seed(0)
    return relative_bias(kind, window=window, num_heads=2, pretrained=pretrained or window, hidden_dim=16)


def test_index_of_pairs_is_the_authors():
    assert pair_index((2, 2)).tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]


@pytest.mark.parametrize(("window", "pretrained", "edge"), [(8, 8, 1.056642), (16, 8, 1.393777), (16, 12, 1.19133)])
def test_coordinates_are_the_authors(window, pretrained, edge):
    log = offset_coordinates((window, window), (pretrained, pretrained), True)
    assert log.abs().max().item() == pytest.approx(edge, abs=1e-6)
    linear = offset_coordinates((window, window), (pretrained, pretrained), False)
    assert linear.abs().max().item() == pytest.approx((window - 1) / (pretrained - 1))


def test_row_of_coordinates_for_a_window_of_8():
    published = [-1.0566, -0.9913, -0.9157, -0.8260, -0.7156, -0.5721, -0.3665, 0]
    row = offset_coordinates((8, 8), (8, 8), True).view(15, 15, 2)[7, :8, 1]
    torch.testing.assert_close(row, torch.tensor(published), atol=5e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_bias_of_a_pair_depends_on_its_offset_only(kind):
    bias = build(kind)().view(2, 3, 4, 3, 4)
    assert torch.equal(bias[:, 0, 0, 1, 2], bias[:, 1, 1, 2, 3])
    assert (bias[:, 0, 0, 1, 2] - bias[:, 1, 2, 0, 0]).abs().max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_one_cell_has_a_finite_bias(kind):
    assert build(kind, window=(1, 1))().isfinite().all()


def test_nets_stay_between_0_and_16():
    module = build()
    with torch.no_grad():
        module.fc2.weight.mul_(1e4)
    assert 0 <= module().min() <= module().max() <= 16


def test_pair_equals_net_of_its_coordinates():
    module = build(window=(2, 2))
    hidden = torch.relu(module.fc1(torch.tensor([1.0, -1.0]) * torch.log2(torch.tensor(9.0)) / 3))
    expected = 16 * torch.sigmoid(module.fc2(hidden))  # query (1, 0), key (0, 1)
    torch.testing.assert_close(module()[0, :, 2, 1], expected)


def changed_in_place(module):
    with torch.no_grad():
        next(module.parameters()).add_(1)


def changed_by_loading(module):
    module.load_state_dict({name: tensor + 1 for name, tensor in module.state_dict().items()})


def changed_by_an_optimizer(module):
    optimizer = torch.optim.AdamW(module.parameters(), lr=1.0)
    module().sum().backward()
    optimizer.step()


def changed_by_replacement(module):
    name, parameter = next(iter(module.named_parameters()))
    owner = module.get_submodule(name.rpartition(".")[0])
    setattr(owner, name.rpartition(".")[2], torch.nn.Parameter(parameter.detach() + 1))


def changed_by_data(module):
    parameter = next(module.parameters())
    parameter.data = parameter.data + 1


def changed_by_data_twice(module):
    """The second may be put where the first was."""
    changed_by_data(module)
    changed_by_data(module)


def changed_in_a_step_that_leaves_no_trace(module):
    module.train()
    next(module.parameters()).data.add_(1)
    module.eval()


CHANGES = [
    changed_in_place,
    changed_by_loading,
    changed_by_an_optimizer,
    changed_by_replacement,
    changed_by_data,
    changed_by_data_twice,
    changed_in_a_step_that_leaves_no_trace,
]


@pytest.mark.parametrize("kind", ["cpb_log", "parameterised"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_kept_bias_is_never_stale(kind, change, mode):
    module = build(kind).eval()
    with mode():
        before = module()
        assert module() is before
    change(module)
    with mode():
        after = module()
    torch.testing.assert_close(after, module._pairs())
    assert (after - before).abs().max() > 0


def test_kept_bias_stays_with_its_module_and_format():
    module = build().eval()
    with torch.no_grad():
        kept, twin = module(), copy.deepcopy(module)
        for _ in range(3):
            changed_in_place(twin)
        assert (twin() - kept).abs().max() > 0
        assert module.to(torch.bfloat16)().dtype == torch.bfloat16
        assert module.float()() is not kept


def test_gradients_flow_where_they_are_asked_for():
    module = build().eval()
    with torch.no_grad():
        module()
    module().square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


def test_kept_bias_of_a_frozen_net_may_enter_a_graph():
    module = build().requires_grad_(False)
    with torch.inference_mode():
        module()
    x = torch.randn(1, 2, 12, 12, requires_grad=True)
    (x * module()).sum().backward()
    torch.testing.assert_close(x.grad, module())


def test_full_precision_under_autocast():
    module = build().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module().dtype == torch.float32
        torch.testing.assert_close(module(), module._pairs())


def test_table_of_another_window():
    """Bicubic, corners inside: a constant stays, a ramp stays a ramp in the middle; what is no square is refused."""
    torch.testing.assert_close(resize_table(torch.full((49, 2), 3.0), (8, 8)), torch.full((225, 2), 3.0))
    ramp = torch.arange(7.0).repeat(7).unsqueeze(1)  # (49, 1), by column
    wide = resize_table(ramp, (7, 7)).view(13, 13)
    torch.testing.assert_close(wide[6, 6], torch.tensor(3.0))
    torch.testing.assert_close(wide[0], wide[12])
    assert torch.equal(resize_table(ramp, (4, 4)), ramp)
    assert resize_table(torch.zeros(48, 2), (4, 4)) is None


def test_a_table_has_a_number_for_each_offset():
    torch.manual_seed(0)
    module = relative_bias("parameterised", window=(8, 7), num_heads=9, pretrained=(8, 7), hidden_dim=16)
    assert module.table.shape == (15 * 13, 9)
    assert module.table.std().item() == pytest.approx(0.02, rel=0.05)


def test_unknown_kind():
    with pytest.raises(ConfigError, match=r"use cpb_log, cpb_linear or parameterised"):
        build("none")
