"""An image's logits are its own, whatever shares its sequence, and by whatever kernel."""

import pytest
import torch

from tests.tiny_navit import PATCH, images, packed, tiny_navit, tokens_of
from vitexp.attention.qknorm import QkNorm
from vitexp.batch import PackedImages, grid_places, pack_images, to_patches
from vitexp.build import make
from vitexp.config.compose import compose
from vitexp.errors import ConfigError
from vitexp.model.vit import ViT

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
CPU_KERNELS = ["mask", "split", "jagged"]
POSITIONS = [
    {"kind": kind, "coordinates": coordinates, "combine": combine}
    for kind in ("learned", "sinusoidal", "fourier")
    for coordinates in ("absolute", "fractional", "aspect")
    for combine in ("add", "stack", "product")
    if kind != "fourier" or combine == "add"
]


def alone(model, pictures):
    return torch.cat([model(picture[None]) for picture in pictures])


@pytest.mark.parametrize("kernel", ["auto", *CPU_KERNELS])
def test_packed_equals_alone(kernel):
    model, pictures = tiny_navit(kernel=kernel), images()
    expected = alone(model, pictures)
    assert expected.std() > 0.01
    a, b, c, d, e, f = pictures
    torch.testing.assert_close(model(packed([[a, b, c], [d], [e, f]])), expected, **CLOSE)
    torch.testing.assert_close(model(packed([[a], [b, c, d], [e, f]], length=64)), expected, **CLOSE)


@pytest.mark.parametrize("attention", ["softmax", "cosine", "reattention", "qknorm"])
def test_any_attention_that_takes_a_mask(attention):
    factory = make(compose([f"attention={attention}"]).model.attention)
    model, pictures = tiny_navit(attention=factory), images()
    torch.testing.assert_close(model(packed([pictures[:3], pictures[3:]])), alone(model, pictures), **CLOSE)


@pytest.mark.parametrize("position", POSITIONS, ids=lambda position: "-".join(position.values()))
def test_any_position(position):
    model, pictures = tiny_navit(**position), images()
    expected = alone(model, pictures)
    torch.testing.assert_close(model(packed([pictures[:3], pictures[3:]])), expected, **CLOSE)
    turned = model(pictures[1].flip(-1)[None])
    assert (turned - expected[1]).abs().max() > 1e-4, "positions are seen"


def test_order_in_the_sequence_is_irrelevant():
    model, (a, b, c, d, e, f) = tiny_navit(), images()
    one, two = model(packed([[a, b, c], [d, e, f]])), model(packed([[f, d, e], [c, a, b]]))
    torch.testing.assert_close(two, one[[5, 3, 4, 2, 0, 1]], **CLOSE)


@pytest.mark.parametrize("kernel", CPU_KERNELS)
def test_gradients_are_those_of_the_images_alone(kernel):
    model, pictures = tiny_navit(kernel=kernel), images()
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    gradients = []
    for logits in (alone(model, pictures), model(packed([pictures[:3], pictures[3:]]))):
        model.zero_grad()
        torch.nn.functional.cross_entropy(logits, labels).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() == dict(model.named_parameters()).keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, **CLOSE, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kernel", CPU_KERNELS)
def test_padding_and_companions_have_no_influence(kernel):
    model, (a, b, *_) = tiny_navit(kernel=kernel), images()
    batch = packed([[a, b]])
    batch.patches.requires_grad_()
    logits = model(batch)
    logits[0].sum().backward()
    size = tokens_of(a)[0].shape[0]
    assert batch.patches.grad[0, :size].abs().sum() > 0
    assert batch.patches.grad[0, size:].abs().max() == 0
    louder = packed([[a, 3 * b]])
    louder.patches[0, louder.owner[0] < 0] = 7.0
    assert torch.equal(model(louder)[0], logits[0])


@pytest.mark.parametrize("kernel", CPU_KERNELS)
def test_the_order_of_tokens_and_dropping_none(kernel):
    model, (a, b, *_) = tiny_navit(kernel=kernel), images()
    shuffled = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    batch = pack_images([[tokens_of(a), tokens_of(b, shuffled)]], length=32, patch_size=PATCH)
    torch.testing.assert_close(model(batch), alone(model, [a, b]), **CLOSE)


def test_a_token_keeps_its_place_when_others_are_dropped():
    model, (_, b, *_) = tiny_navit(), images()
    kept = torch.tensor([1, 6, 11, 15])
    (row,) = model(pack_images([[tokens_of(b, kept)]], length=8, patch_size=PATCH))
    tokens = (model.stem(b[None]).flatten(2).mT + model.position(grid_places((4, 4)), torch.full((16, 2), 4)))[:, kept]
    for block in model.blocks:
        tokens = block(tokens)
    torch.testing.assert_close(row, model.head(model.pool(model.norm(tokens)))[0], **CLOSE)


def test_square_images_at_absolute_places_are_a_plain_vit():
    ours, picture = tiny_navit(), images()[1][None]
    vit = ViT(
        image_size=16,
        in_channels=3,
        stem=lambda **options: ours.stem,
        dim=16,
        depth=2,
        num_heads=2,
        mlp_ratio=2.0,
        attention=lambda *options, **more: QkNorm(16, 2, qkv_bias=False, eps=1e-6),
        num_classes=5,
        pool="mean",
    ).eval()
    own = ours.state_dict()
    vit.load_state_dict(own, strict=False)
    with torch.no_grad():
        for name, parameter in vit.named_parameters():
            if name.endswith(("norm.bias", "norm1.bias", "norm2.bias")) and name not in own:
                parameter.zero_()
        table = ours.position.rows[:4, None] + ours.position.columns[None, :4]
        vit.position.copy_(table.flatten(0, 1)[None])
    torch.testing.assert_close(ours.encode(picture), vit.encode(picture), **CLOSE)


def test_count_by_the_formula():
    """Blocks: q, k, v without bias, out with; two norms and those of queries and keys without; the MLP with."""
    for name in ("navit_ti16", "navit_s16", "navit_b16", "navit_l16"):
        cfg = compose([f"model={name}", "data.channels=3"])
        d, depth, head = cfg.model.dim, cfg.model.depth, cfg.model.dim // cfg.model.num_heads
        hidden, table = 4 * d, cfg.model.position.max_grid
        mlp = d * hidden + hidden + hidden * d + d
        block = 3 * d * d + (d * d + d) + 2 * d + 2 * head + mlp
        pool = d + (d * d + d) + (2 * d * d + 2 * d) + (d * d + d) + 2 * d + mlp
        whole = (3 * 16 * 16 * d + d) + 2 * table * d + depth * block + d + pool + (1000 * d + 1000)
        assert cfg.reference.parameters == whole


def test_patches_are_those_of_the_convolution():
    picture = images()[1]
    patches = to_patches(picture, PATCH)
    stem = tiny_navit().stem
    linear = torch.nn.functional.linear(patches, stem.projection.weight.flatten(1), stem.projection.bias)
    torch.testing.assert_close(linear, stem(picture[None])[0].flatten(1).T, **CLOSE)
    assert torch.equal(patches[5].unflatten(0, (3, PATCH, PATCH)), picture[:, 4:8, 4:8])


def test_images_larger_than_the_table():
    for kind in ("learned", "sinusoidal", "fourier"):
        model = tiny_navit(kind=kind)
        big = torch.randn(1, 3, 12 * PATCH, 3 * PATCH)
        assert model(big).isfinite().all()
    assert (model(big) - model(big.flip(-2))).abs().max() > 1e-5


def test_what_a_batch_says_of_itself():
    a, b, c, *_ = images()
    batch = packed([[a, b], [c]], length=24)
    assert len(batch) == 3
    assert batch.num_tokens == 6 + 16 + 5
    assert batch.padding_rate == pytest.approx(1 - 27 / 48)
    assert batch.owner.tolist()[1] == [0] * 5 + [-1] * 19
    assert isinstance(batch.to("cpu"), PackedImages)


def test_features_are_the_final_tokens_in_their_places():
    model, pictures = tiny_navit(), torch.randn(2, 3, 2 * PATCH, 5 * PATCH)
    (found,) = model.features(pictures)
    assert found.shape == (2, 16, 2, 5)
    torch.testing.assert_close(found[:, :, 1, 3], model.encode(pictures)[:, 5 + 3])
    torch.testing.assert_close(model.pool(found.flatten(2).mT), model.pool(model.encode(pictures)))


def test_a_single_block_and_a_head_that_starts_small():
    torch.manual_seed(0)
    model = make(compose(["model=navit_nano", "data=fake", "model.depth=1"]).model)
    assert model.head.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.head.bias.abs().max() == 0
    assert model.kernel_for(torch.device("cpu")) == "split"


def test_what_cannot_work_says_what_can():
    factory = make(compose(["attention=separable"]).model.attention)
    with pytest.raises(ConfigError, match=r"attention=separable .* use attention=qknorm"):
        tiny_navit(attention=factory)
    with pytest.raises(ConfigError, match=r"images of 18x16 pixels .* multiples of 4"):
        tiny_navit()(torch.zeros(1, 3, 18, 16))
    with pytest.raises(ConfigError, match=r"kernel=fast is unknown; use auto, mask, split"):
        tiny_navit(kernel="fast")
    with pytest.raises(ConfigError, match=r"position.kind=waves is unknown; .* use learned"):
        tiny_navit(kind="waves")


def test_a_table_of_another_length_is_read_between_its_entries():
    small, large = tiny_navit(), tiny_navit(max_grid=15)
    fitted, how = large.adapt("position.rows", small.position.rows.detach())
    assert how == "resized from 8 to 15 entries (linear)"
    torch.testing.assert_close(fitted[::2], small.position.rows.detach())
    assert large.adapt("head.weight", small.head.weight) is None
