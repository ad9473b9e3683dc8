"""Swin V2: shapes, its switches, what windows see, equality with timm, and its errors."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from tests.tiny import randomise, tiny_swinv2
from vitexp.attention.base import DenseAttention
from vitexp.attention.softmax import Softmax
from vitexp.build import make
from vitexp.checkpoint.load import export_names
from vitexp.config.compose import compose
from vitexp.errors import ConfigError
from vitexp.optim.group import layer_of, parameter_groups

SOFTMAX = partial(Softmax, qkv_bias=True, temperature=1.0)
VARIANTS = [
    {},
    {"norm": "pre"},
    {"norm": "post"},
    {"norm": "sandwich"},
    {"bias": "cpb_linear"},
    {"bias": "parameterised"},
    {"extra_norm_every": 2},
    {"attention": SOFTMAX},
    {"image_size": (40, 28), "padding": "timm"},
    {"image_size": (40, 28), "padding": "hf", "clamp": "both"},
    {"image_size": (40, 28), "drop_path_rate": 0.2, "pretrained_size": [4, 2]},
]


def images_for(model, batch=2):
    return torch.randn(batch, 3, *(side * model.strides[-1] for side in model.grid))


@pytest.mark.parametrize("options", VARIANTS)
def test_gradients_reach_every_parameter(options):
    model = randomise(tiny_swinv2(**options)).train()
    logits = model(images_for(model, batch=8))
    assert logits.shape == (8, 5)
    logits.logsumexp(1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_training_step_lowers_the_loss():
    model = tiny_swinv2().train()
    images, labels = torch.randn(4, 3, 32, 32), torch.arange(4)
    optimizer = torch.optim.AdamW(parameter_groups(model, lr=1e-2, weight_decay=0.05))
    losses = []
    for _ in range(8):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_features_are_the_maps_of_the_stages():
    model = randomise(tiny_swinv2(image_size=(64, 32))).eval()
    images = torch.randn(2, 3, 64, 32)
    maps = model.features(images)
    assert model.strides == (4, 8)
    assert [tuple(m.shape) for m in maps] == [(2, 8, 16, 8), (2, 16, 8, 4)]
    torch.testing.assert_close(model.classify(maps[-1].permute(0, 2, 3, 1)), model(images))


@pytest.mark.parametrize("size", [(32, 32), (30, 33), (50, 70), (4, 4), (3, 5)])
def test_images_of_any_size_pass(size):
    """Built for 32 pixels; whole patches, whole windows and even maps are made by padding."""
    model = randomise(tiny_swinv2()).eval()
    images = torch.randn(2, 3, *size)
    logits, maps = model(images), model.features(images)
    assert logits.isfinite().all()
    for stride, m in zip(model.strides, maps, strict=True):
        assert m.shape[2:] == tuple(-(-side // stride) for side in size)


def test_overhanging_cells_attend_each_other_alone():
    """6 x 6 cells in windows of 4: the last 2 x 2 share a window with padding, which they do not see."""
    model = randomise(tiny_swinv2(image_size=24, depths=[2], num_heads=[2])).eval()
    block, x = model.stages[0].blocks[0], torch.randn(1, 6, 6, 8)
    places = torch.tensor([0, 1, 4, 5])  # of 2 x 2 cells in a window of 4
    bias = block.bias()[:, :, places][..., places]
    alone = block.attention(x[:, 4:, 4:].flatten(1, 2), bias=bias).unflatten(1, (2, 2))
    torch.testing.assert_close(block._attend(x)[:, 4:, 4:], alone, atol=1e-5, rtol=1e-5)
    block.windows.padding = "hf"
    assert (block._attend(x)[:, 4:, 4:] - alone).abs().max() > 1e-3


def test_each_block_starts_as_the_identity():
    model, x = tiny_swinv2(drop_path_rate=0.0), torch.randn(2, 8, 8, 8)
    for block in model.stages[0].blocks:
        assert torch.equal(block(x), x)
    assert not torch.equal(tiny_swinv2(norm="pre").stages[0].blocks[0](x), x)


def test_extra_norms_stand_after_every_so_many_blocks_of_a_stage():
    model = tiny_swinv2(depths=[4, 3], extra_norm_every=2)
    named = {name for name, _ in model.named_parameters() if "norm3.weight" in name}
    assert named == {
        "stages.0.blocks.1.norm3.weight",
        "stages.0.blocks.3.norm3.weight",
        "stages.1.blocks.1.norm3.weight",
    }
    assert not any("norm3" in name for name, _ in tiny_swinv2().named_parameters())


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        ("res_post", lambda x, f, n, _: x + n(f(x))),
        ("pre", lambda x, f, n, _: x + f(n(x))),
        ("post", lambda x, f, n, _: n(x + f(x))),
        ("sandwich", lambda x, f, n, inner: x + n(f(inner(x)))),
    ],
)
def test_norms_stand_where_the_paper_says(norm, expected):
    block, x = randomise(tiny_swinv2(norm=norm).stages[0].blocks[1]).eval(), torch.randn(1, 8, 8, 8)
    middle = expected(x, block._attend, block.norm1, block.inner1)
    torch.testing.assert_close(block(x), expected(middle, block.mlp, block.norm2, block.inner2))


def test_shifted_block_attends_the_nine_regions():
    """16 x 16 cells, windows of 8, shift 4: the rectangles between rows and columns 0, 4, 12, 16."""
    model = randomise(tiny_swinv2(image_size=64, depths=[2], num_heads=[2], window=8)).eval()
    block, x = model.stages[0].blocks[1], torch.randn(2, 16, 16, 8)
    cuts, read = [0, 4, 12, 16], torch.empty(2, 16, 16, 8)
    bias = block.bias().view(1, 2, 8, 8, 8, 8)
    for top, bottom in pairwise(cuts):
        for left, right in pairwise(cuts):
            region, height, width = x[:, top:bottom, left:right], bottom - top, right - left
            part = bias[:, :, :height, :width, :height, :width].flatten(4, 5).flatten(2, 3)
            read[:, top:bottom, left:right] = block.attention(region.flatten(1, 2), bias=part).view_as(region)
    torch.testing.assert_close(block._attend(x), read, atol=1e-5, rtol=1e-5)


def test_plain_block_commutes_with_rolling_by_a_window():
    model = randomise(tiny_swinv2(image_size=64, window=4)).eval()
    block, x = model.stages[0].blocks[0], torch.randn(1, 16, 16, 8)
    torch.testing.assert_close(block(torch.roll(x, (4, 8), (1, 2))), torch.roll(block(x), (4, 8), (1, 2)))


def test_merging_takes_the_cells_by_column():
    merge = tiny_swinv2().stages[1].merge
    x = torch.randn(1, 2, 2, 8)
    stacked = torch.cat([x[:, 0, 0], x[:, 1, 0], x[:, 0, 1], x[:, 1, 1]], dim=-1)
    torch.testing.assert_close(merge(x)[:, 0, 0], merge.norm(merge.reduction(stacked)))


@pytest.mark.parametrize("window", [2, 8, 12])
def test_nets_fit_any_window_without_a_change(window):
    """Trained with windows of 4: no tensor changes its shape, and offsets keep the scale they were trained with."""
    trained = randomise(tiny_swinv2(window=4))
    other = tiny_swinv2(window=window, image_size=128, pretrained_size=4).eval()
    other.load_state_dict(trained.state_dict())
    assert other(torch.randn(1, 3, 128, 128)).isfinite().all()
    same, alone = trained.stages[0].blocks[0].bias.eval(), other.stages[0].blocks[0].bias
    shared = min(window, 4)
    small = same().unflatten(3, (4, 4)).unflatten(2, (4, 4))[:, :, :shared, :shared, :shared, :shared]
    large = alone().unflatten(3, (window, window)).unflatten(2, (window, window))
    torch.testing.assert_close(large[:, :, :shared, :shared, :shared, :shared], small)


def test_windows_of_one_cell_are_finite():
    model = randomise(tiny_swinv2(image_size=8)).train()  # maps of 2 x 2 and 1 x 1
    loss = model(torch.randn(2, 3, 8, 8)).square().sum()
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite_at_32_pixels(precision):
    model = randomise(tiny_swinv2(window=3)).train()
    with torch.autocast("cpu", dtype=precision):
        model(torch.randn(2, 3, 32, 32)).float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_checkpointed_blocks_give_the_same_gradients():
    gradients = []
    for on in (False, True):
        model = randomise(tiny_swinv2()).train()
        x = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
        for block in model.stages[0].blocks:
            x = checkpoint(block, x, use_reentrant=False) if on else block(x)
        x.square().sum().backward()
        gradients.append([p.grad for p in model.stages[0].parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


def test_chunked_attention_equals_the_whole():
    images = torch.randn(2, 3, 40, 40)
    whole, chunked = (randomise(tiny_swinv2(image_size=40, chunk=chunk)).train() for chunk in (0, 50))
    for model in (whole, chunked):
        model(images).square().sum().backward()
    for a, b in zip(whole.parameters(), chunked.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, atol=1e-5, rtol=1e-4)


def tiny_published():
    cfg = compose(["model=swinv2", "size=256", "data.channels=3", "data.num_classes=100"])
    with torch.device("meta"):
        return make(cfg.model)


def test_decay_is_the_authors():
    """Of 221 tensors 168 do not decay: 1-D ones, scales, and the nets of the bias."""
    groups = parameter_groups(tiny_published(), lr=1.0, weight_decay=0.05)
    sizes = {group["weight_decay"]: [p.numel() for p in group["params"]] for group in groups}
    assert sum(sizes[0.05]) == 27_508_224
    assert sum(sizes[0.0]) == 146_830
    assert len(sizes[0.0]) == 168


def test_layer_decay_counts_blocks_through_the_stages():
    groups = parameter_groups(tiny_published(), lr=1.0, weight_decay=0.05, layer_decay=0.5)
    ids = {name: -torch.tensor(group["lr"]).log2().item() for group in groups for name in group["names"]}
    ids = {name: round(13 - exponent) for name, exponent in ids.items()}
    assert ids["stem.projection.weight"] == ids["stem_norm.bias"] == 0
    assert ids["stages.0.blocks.0.mlp.fc1.weight"] == 1
    assert ids["stages.1.merge.reduction.weight"] == ids["stages.0.blocks.1.norm1.weight"] == 2
    assert ids["stages.2.blocks.5.bias.fc1.weight"] == 10
    assert ids["stages.3.blocks.1.attention.logit_scale"] == 12
    assert ids["norm.weight"] == ids["head.weight"] == 13
    assert layer_of("stages.2.conv.weight", 4) == 3


def test_drop_path_grows_over_all_blocks():
    model = tiny_swinv2(depths=[2, 3], drop_path_rate=0.4)
    rates = [block.drop_path.rate for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_parameterised_bias_of_another_window_is_resized(tmp_path):
    from vitexp.checkpoint.load import load_weights

    trained = randomise(tiny_swinv2(window=4, bias="parameterised"))
    torch.save(trained.state_dict(), tmp_path / "swin.pth")
    other = tiny_swinv2(window=6, bias="parameterised", image_size=64)
    lines = load_weights(other, tmp_path / "swin.pth")
    assert len(lines) == 4
    assert lines[0] == "stages.0.blocks.0.bias.table: bias table of 49 offsets resized to a window of 6x6 cells"
    centre = trained.stages[0].blocks[0].bias.table[24]
    torch.testing.assert_close(other.stages[0].blocks[0].bias.table[60], centre)


def test_the_published_model_has_the_logits_of_timm():
    """Toy geometries, padding and other origins: tests/checkpoint/names/test_swinv2.py."""
    import timm

    cfg = compose(["model=swinv2", "size=256", "data.channels=3", "data.num_classes=1000"])
    torch.manual_seed(0)
    model = make(cfg.model).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or parameter.ndim == 1:  # norms start at zero: nothing else would show
                parameter.add_(torch.randn_like(parameter) * 0.3)
            elif "bias.fc" in name:
                parameter.mul_(10)
    reference = timm.create_model("swinv2_tiny_window8_256").eval()
    reference.load_state_dict(export_names(model))
    images = torch.randn(1, 3, 256, 256)
    with torch.inference_mode():
        ours, theirs = model(images), reference(images)
    assert theirs.std() > 0.1
    assert (ours - theirs).abs().max() / theirs.abs().max() < 1e-5


def test_compiles_without_graph_breaks():
    model = tiny_swinv2(drop_path_rate=0.1).train()
    explained = torch._dynamo.explain(model)(torch.randn(2, 3, 32, 32))
    assert explained.graph_break_count == 0, explained.break_reasons


class NoMask(DenseAttention):
    takes_mask = False


class Neither(DenseAttention):
    takes_mask = takes_bias = False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": NoMask}, "model=swinv2 with attention=nomask.*takes no mask; use attention=cosine, softmax"),
        ({"attention": Neither}, "takes no mask and bias"),
        ({"norm": "batch"}, "use res_post, pre, post or sandwich"),
        ({"bias": "none"}, "use cpb_log"),
        ({"padding": "zero"}, "use masked, hf or timm"),
        ({"num_heads": [2]}, r"model.num_heads=\[2\] is for 1 stages and model.depths=\[2, 2\] for 2"),
        ({"pretrained_size": [4, 4, 4]}, "give one number a stage"),
        ({"num_heads": [3, 4]}, "num_heads must divide dim"),
        ({"window": 0}, "use 8"),
    ],
)
def test_errors_say_what_to_type(options, message):
    with pytest.raises(ConfigError, match=message):
        tiny_swinv2(**options)
