"""Re-attention is the authors' module, and keeps its norm honest behind a mask."""

import math

import pytest
import torch
from torch.nn import functional as F

from vitexp.attention.reattention import Reattention
from vitexp.attention.softmax import Softmax
from vitexp.errors import ConfigError

DIM, HEADS, TOKENS = 24, 3, 9
OPTIONS = {"qkv_bias": True, "temperature": 1.0, "theta": "random", "transform_scale": False}


def build(dim=DIM, heads=HEADS, **options):
    torch.manual_seed(0)
    return Reattention(dim, heads, **{**OPTIONS, **options})


def trained(module):
    """Statistics and affine values of a module that has been trained."""
    torch.manual_seed(1)
    norm = module.norm
    with torch.no_grad():
        norm.weight.normal_(1.0, 0.3)
        norm.bias.normal_(std=0.3)
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(1e-3, 1e-2)
    return module


def tokens(seed=2):
    return torch.randn(2, TOKENS, DIM, generator=torch.Generator().manual_seed(seed))


def official(state, x, *, training, scale=1.0):
    """The authors' ReAttention.forward, written out over a state dict of ours; and its running statistics after it."""
    d = DIM // HEADS
    qkv = F.linear(x, state["qkv_projection.weight"], state["qkv_projection.bias"])
    q, k, v = qkv.reshape(len(x), -1, 3, HEADS, d).permute(2, 0, 3, 1, 4)
    maps = (q @ k.transpose(-2, -1) * d**-0.5).softmax(dim=-1)
    maps = F.conv2d(maps, state["theta.weight"], state["theta.bias"])
    mean, var = state["norm.running_mean"].clone(), state["norm.running_var"].clone()
    maps = F.batch_norm(maps, mean, var, state["norm.weight"], state["norm.bias"], training, 0.1, 1e-5) * scale
    read = (maps @ v).transpose(1, 2).reshape(x.shape)
    return F.linear(read, state["out.weight"], state["out.bias"]), mean, var


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("transform_scale", [False, True])
def test_equals_the_authors_module_given_its_weights(training, transform_scale):
    module = trained(build(transform_scale=transform_scale)).train(training)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    scale = (DIM // HEADS) ** -0.5 if transform_scale else 1.0
    expected, mean, var = official(state, tokens(), training=training, scale=scale)
    torch.testing.assert_close(module(tokens()), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(module.norm.running_mean, mean)
    torch.testing.assert_close(module.norm.running_var, var)
    assert module.norm.num_batches_tracked == training


def test_gradients_are_those_of_the_authors_module():
    module = trained(build()).double().train()
    x = tokens().double()
    state = {name: t.detach().clone().requires_grad_(t.is_floating_point()) for name, t in module.state_dict().items()}
    module(x).square().sum().backward()
    state["norm.running_mean"].requires_grad_(False)
    state["norm.running_var"].requires_grad_(False)
    official(state, x, training=True)[0].square().sum().backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad, state[name].grad, atol=1e-8, rtol=1e-6)


def test_weights_are_the_mixed_map_and_the_softmax_is_there_too():
    module = trained(build()).eval()
    q, k, v = module.qkv(tokens())
    plain = module.softmax_weights(q, k)
    torch.testing.assert_close(plain.sum(-1), torch.ones(2, HEADS, TOKENS))
    weights = module.weights(q, k)
    assert (weights < 0).any()
    torch.testing.assert_close(module.attend(q, k, v), weights @ v, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def identity_norm(module):
    module.norm.running_var.fill_(1 - module.norm.eps)
    return module.eval()


def test_theta_mixes_rows_not_columns():
    """Theta_gh weighs the map of head h in the mixed head g: with a non-symmetric Theta the transpose differs."""
    module = identity_norm(build(dim=16, heads=2, theta="identity"))
    theta = torch.tensor([[0.5, 2.0], [-1.0, 3.0]])
    with torch.no_grad():
        module.theta.weight.copy_(theta[:, :, None, None])
    q, k, _ = module.qkv(torch.randn(1, 5, 16))
    first, second = module.softmax_weights(q, k)[0]
    mixed = module.weights(q, k)[0]
    torch.testing.assert_close(mixed[0], 0.5 * first + 2.0 * second)
    torch.testing.assert_close(mixed[1], -1.0 * first + 3.0 * second)


def test_a_permutation_permutes_heads():
    module = identity_norm(build(theta="identity"))
    order = [2, 0, 1]
    with torch.no_grad():
        module.theta.weight.copy_(torch.eye(HEADS)[order][:, :, None, None])
    q, k, _ = module.qkv(tokens())
    torch.testing.assert_close(module.weights(q, k), module.softmax_weights(q, k)[:, order])


def test_identity_with_fresh_statistics_is_softmax_attention():
    """Up to the norm's epsilon, 5e-6 of the map."""
    module, plain = build(theta="identity").eval(), Softmax(DIM, HEADS, qkv_bias=True, temperature=1.0).eval()
    plain.load_state_dict(
        {name: t for name, t in module.state_dict().items() if not name.startswith(("theta", "norm"))}
    )
    torch.testing.assert_close(module(tokens()), plain(tokens()), atol=1e-5, rtol=1e-5)


def test_random_theta_is_uniform_within_the_root_of_heads():
    module = build(dim=96, heads=12)
    bound = 12**-0.5
    assert 0.9 * bound < module.theta.weight.abs().max() <= bound
    assert sum(p.numel() for m in (module.theta, module.norm) for p in m.parameters()) == 180


def test_statistics_of_the_map_in_training():
    """Mean 0 in each head, variance var / (var + eps) of the mixed map: not 1, since maps vary less than eps."""
    module = build(theta="identity").train()
    q, k, _ = module.qkv(tokens())
    plain, weights = module.softmax_weights(q, k), module.weights(q, k)
    var = plain.var(dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(weights.mean(dim=(0, 2, 3)), torch.zeros(HEADS), atol=1e-5, rtol=0)
    torch.testing.assert_close(weights.std(dim=(0, 2, 3), correction=0), (var / (var + 1e-5)).sqrt())
    assert module.norm.num_batches_tracked == 0, "looking at the map leaves no trace"


@pytest.mark.parametrize("heads_differ", [False, True])
def test_a_padded_batch_trains_as_the_unpadded_one(heads_differ):
    """What is hidden has no part in the statistics, and is zero again after the norm."""
    full, padded = trained(build()).train(), trained(build()).train()
    x = tokens()
    longer = torch.cat([x, torch.full((2, 4, DIM), 7.0)], dim=1)
    mask = torch.ones(1, HEADS if heads_differ else 1, TOKENS + 4, TOKENS + 4, dtype=torch.bool)
    mask[..., TOKENS:] = False
    mask[..., TOKENS:, :] = False
    out = padded(longer, mask=mask)
    torch.testing.assert_close(out[:, :TOKENS], full(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(padded.norm.running_mean, full.norm.running_mean)
    torch.testing.assert_close(padded.norm.running_var, full.norm.running_var)
    q, k, _ = padded.qkv(longer)
    assert padded.weights(q, k, mask).masked_fill(mask, 0.0).abs().max() == 0


def test_minus_infinity_in_the_bias_hides_as_the_mask_does():
    module = trained(build())
    mask = torch.rand(TOKENS, TOKENS, generator=torch.Generator().manual_seed(0)) > 0.4
    mask.fill_diagonal_(True)
    bias = torch.zeros(TOKENS, TOKENS).masked_fill(~mask, -torch.inf)
    for training in (False, True):
        module.train(training)
        torch.testing.assert_close(module(tokens(), bias=bias), module(tokens(), mask=mask))
    other = torch.rand(TOKENS, TOKENS, generator=torch.Generator().manual_seed(1)) > 0.4
    both = module(tokens(), bias=bias, mask=other.fill_diagonal_(True))
    torch.testing.assert_close(both, module(tokens(), mask=mask & other))


def test_nothing_visible_gives_no_nan():
    module = build().train()
    x = tokens().requires_grad_()
    out = module(x, mask=torch.zeros(1, 1, TOKENS, TOKENS, dtype=torch.bool))
    torch.testing.assert_close(out, module.out.bias.expand_as(out))
    out.sum().backward()
    assert x.grad.isfinite().all()
    assert module.norm.running_var.isfinite().all()


def test_autocast_keeps_the_map_in_float32():
    """Only the scores are bfloat16: 8 bits of a map around 1/9 would be off by a tenth of its deviation."""
    module = build(theta="identity").train()
    q, k, _ = module.qkv(tokens())
    expected = module.weights(q, k)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights = module.weights(q, k)
        out = module(tokens())
    assert weights.dtype == torch.float32
    assert out.isfinite().all()
    assert (weights - expected).abs().mean() < 0.02 * expected.abs().mean()


def test_temperature_and_dropout():
    cold, warm = build(temperature=0.1).eval(), build(temperature=10.0).eval()
    peak = [m.softmax_weights(*m.qkv(tokens())[:2]).amax(-1).mean() for m in (cold, warm)]
    assert peak[0] > 1.5 * peak[1]
    assert math.isclose(cold.scale, 10 / math.sqrt(DIM // HEADS))
    module = build(dropout=0.5).train()
    assert not torch.equal(module(tokens()), module(tokens()))
    assert torch.equal(module.eval()(tokens()), module(tokens()))


def test_unknown_theta():
    with pytest.raises(ConfigError, match=r"model\.attention\.theta=eye is unknown; .*; use random or identity"):
        build(theta="eye")


@pytest.mark.slow
def test_compiles_without_graph_breaks():
    explained = torch._dynamo.explain(build().train())(tokens())
    assert explained.graph_break_count == 0, explained.break_reasons
