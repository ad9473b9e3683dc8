"""The similarity of maps is its formula: closed forms, invariances, and equal to the naive stack of all maps."""

import json
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.analysis.subjects import subject
from tests.tiny import randomise, tiny_vit
from vitexp.analysis.gram import CosineSums, cosines
from vitexp.analysis.maps import look
from vitexp.analysis.similarity import Similarity, off_diagonal
from vitexp.errors import ConfigError
from vitexp.report import plot_similarity


def build(tau: float = 0.5, block_ratio: float = 0.8, nearest: int = 2) -> Similarity:
    return Similarity(tau=tau, block_ratio=block_ratio, nearest=nearest)


def naive(model: nn.Module, images: torch.Tensor, tau: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(mean, ratio) over all pairs, from the whole stack [L, B, H, N, N]."""
    kept: list[torch.Tensor] = []
    look(model, images, lambda block, maps: kept.append(maps["softmax"]))
    stack = torch.stack(kept)
    pairs = F.cosine_similarity(stack[:, None], stack[None], dim=-2)  # over queries: (L, L, B, H, N)
    return pairs.mean((2, 3, 4)), (pairs > tau).double().mean((2, 3, 4))


def sharp(**options: int) -> nn.Module:
    """A model whose maps are far from uniform."""
    model = randomise(tiny_vit(**options))
    with torch.no_grad():
        for block in model.blocks:
            block.attention.qkv_projection.weight.mul_(30)
    return model


def test_streamed_equals_naive() -> None:
    model = sharp(depth=4, dim=24, num_heads=3)
    looked = subject(model, count=5)
    alike = build(tau=0.9).measure(looked)
    mean, ratio = naive(model, looked.images, 0.9)
    assert 0.0 < float(off_diagonal(ratio).mean()) < 1.0, "a threshold that separates"
    torch.testing.assert_close(alike.blocks["softmax"].mean.float(), mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alike.blocks["softmax"].ratio, ratio)


def test_the_axis_is_that_of_queries() -> None:
    """Two hand-made maps whose columns are parallel and whose rows are not: the wrong axis does not give 1."""
    first = torch.tensor([[0.1, 0.9], [0.2, 0.8]])
    second = first * torch.tensor([3.0, 0.5])  # each column scaled, so all columns parallel
    stack = torch.stack([first.mT, second.mT], dim=-2)  # (T, L, N)
    torch.testing.assert_close(cosines(stack), torch.ones(2, 2, 2))
    wrong = torch.stack([first, second], dim=-2)
    assert float(cosines(wrong)[:, 0, 1].min()) < 0.95


def test_a_map_with_itself_is_one_and_scaling_changes_nothing() -> None:
    maps = torch.rand(3, 2, 7, 7)
    torch.testing.assert_close(cosines(maps).diagonal(dim1=-2, dim2=-1), torch.ones(3, 2, 7))
    scaled = maps.clone()
    scaled[..., 2, :] *= 100
    torch.testing.assert_close(cosines(scaled), cosines(maps))
    assert torch.equal(cosines(torch.zeros(1, 2, 3)), torch.zeros(1, 2, 2))


def test_non_negative_maps_are_never_orthogonal() -> None:
    """Why the untrained model stands beside: the acceptance sheet measured 0.82 for softmax against U(0, 1)."""
    torch.manual_seed(0)
    softmax, uniform = (0.3 * torch.randn(4, 50, 50)).softmax(-1), torch.rand(4, 50, 50)
    sums = CosineSums(tau=0.5)
    sums.add(torch.stack([softmax, uniform], dim=-2), size=2)
    assert float(sums.mean[0, 1]) > 0.75
    assert float(sums.ratio[0, 1]) == 1.0


def test_blocks_that_share_weights_and_write_nothing_collapse() -> None:
    model = randomise(tiny_vit(depth=4))
    for block in model.blocks:
        block.load_state_dict(model.blocks[0].state_dict())
        for linear in (block.attention.out, block.mlp.fc2):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
    analysis = build()
    values = analysis.summary(analysis.measure(subject(model)))
    assert values["softmax/similar_blocks"] == 3
    assert values["softmax/adjacent_ratio"] == 1.0
    assert values["softmax/adjacent_cosine"] == pytest.approx(1.0, abs=1e-6)
    assert values["tokens/adjacent_cosine"] == pytest.approx(1.0, abs=1e-6)


def test_permuted_heads_are_other_heads() -> None:
    """The comparison is head by head: swapping a block's heads changes blocks, and not the heads' own likeness."""
    model = sharp(depth=2, dim=16, num_heads=2)
    analysis = build()
    before = analysis.summary(analysis.measure(subject(model)))
    attention = model.blocks[1].attention
    order = torch.arange(16).reshape(2, 8).flip(0).flatten()
    with torch.no_grad():
        rows = torch.cat([order, order + 16, order + 32])
        attention.qkv_projection.weight.copy_(attention.qkv_projection.weight[rows])
        attention.qkv_projection.bias.copy_(attention.qkv_projection.bias[rows])
        attention.out.weight.copy_(attention.out.weight[:, order])
    after = analysis.summary(analysis.measure(subject(model)))
    assert after["softmax/adjacent_cosine"] != pytest.approx(before["softmax/adjacent_cosine"], abs=1e-4)
    assert after["softmax/heads_cosine"] == pytest.approx(before["softmax/heads_cosine"], abs=1e-5)
    assert after["tokens/adjacent_cosine"] == pytest.approx(before["tokens/adjacent_cosine"], abs=1e-5)


def test_nearest_blocks_and_similar_blocks_by_hand() -> None:
    ratio = torch.tensor([[1.0, 0.9, 0.1], [0.9, 1.0, 0.5], [0.1, 0.5, 1.0]], dtype=torch.float64)
    analysis = build(nearest=1)
    assert analysis.nearest_score(ratio).tolist() == pytest.approx([0.9, 0.9, 0.5])
    assert build(nearest=2).nearest_score(ratio).tolist() == pytest.approx([0.5, 0.7, 0.3])
    assert analysis.similar_blocks(ratio) == 1
    assert build(block_ratio=0.4).similar_blocks(ratio) == 2


def test_blocks_of_other_shapes_are_not_compared() -> None:
    sums = CosineSums(tau=0.5)
    sums.add(torch.rand(4, 2, 9), size=3, members=torch.tensor([0, 2]))
    assert sums.mean.isnan().tolist() == [[False, True, False], [True, True, True], [False, True, False]]
    assert build().nearest_score(sums.ratio).isnan().tolist() == [False, True, False]


def test_sums_are_in_double_precision() -> None:
    pair = torch.tensor([[1.0, 0.3], [0.2, 1.0]])
    one = float(cosines(pair)[0, 1])
    sums = CosineSums(tau=0.5)
    for _ in range(3):
        sums.add(pair.expand(1001, 2, 2), size=2)
    assert float(sums.mean[0, 1]) == pytest.approx(one, rel=1e-12)


def test_every_row_says_what_it_compares() -> None:
    analysis = build()
    rows = analysis.rows(analysis.measure(subject(tiny_vit(depth=3), count=2)))
    places = {(row["between"], row["kind"], row["block"], row["first"], row["second"]) for row in rows}
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = {(*what, "", *pair) for what in (("blocks", "softmax"), ("tokens", "output")) for pair in pairs}
    assert places == expected | {("heads", "softmax", block, 0, 1) for block in range(3)}
    assert {tuple(row) for row in rows} == {("between", "kind", "block", "first", "second", "cosine", "ratio")}


def test_curves_are_of_neighbours(monkeypatch, tmp_path: Path) -> None:
    drawn: dict = {}
    monkeypatch.setattr(plot_similarity, "similarity", lambda curves, out, **options: drawn.update(curves, **options))
    analysis = build()
    alike = analysis.measure(subject(sharp(depth=3), count=2))
    analysis.draw({"trained": alike}, tmp_path / "similarity.png", "tiny")
    curves, sums = drawn["trained", "softmax"], alike.blocks["softmax"]
    assert curves.adjacent.tolist() == [float(sums.ratio[0, 1]), float(sums.ratio[1, 2])]
    assert curves.cosine.tolist() == [float(sums.mean[0, 1]), float(sums.mean[1, 2])]
    assert curves.tokens.tolist() == [float(alike.tokens.mean[0, 1]), float(alike.tokens.mean[1, 2])]
    assert curves.nearest.tolist() == analysis.nearest_score(sums.ratio).tolist()
    heads = [float(sums.mean[0, 1]) for sums in alike.heads["softmax"].values()]
    assert curves.heads == pytest.approx(heads, rel=1e-6)
    assert (drawn["tau"], drawn["block_ratio"], drawn["nearest"], drawn["title"]) == (0.5, 0.8, 2, "tiny")


def test_no_more_than_the_maps_of_one_image_are_alive() -> None:
    """However many images: every map that was made is gone when the next image begins."""
    model, born = tiny_vit(depth=3), list[weakref.ref[torch.Tensor]]()
    most = 0

    def weights(q: torch.Tensor, k: torch.Tensor, mask: object = None, bias: object = None) -> torch.Tensor:
        nonlocal most
        made = (q @ k.mT).softmax(-1)
        born.append(weakref.ref(made))
        most = max(most, sum(reference() is not None for reference in born))
        return made

    for block in model.blocks:
        block.attention.__dict__["weights"] = weights
    build().measure(subject(model, count=6))
    assert len(born) == 18
    assert most <= 4


def test_one_block_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs two or more; use model\.depth=2"):
        build().measure(subject(tiny_vit(depth=1)))


def test_the_picture_is_drawn_twice(tmp_path: Path) -> None:
    analysis, looked = build(), subject(tiny_vit(depth=3))
    measured = {"trained": analysis.measure(looked), "untrained": analysis.measure(looked)}
    analysis.draw(measured, tmp_path / "similarity.png", "tiny, no checkpoint, 3 images")
    assert (tmp_path / "similarity.png").stat().st_size > 10_000
    assert "<svg" in (tmp_path / "similarity.svg").read_text()[:600]
    assert len(analysis.rows(measured["trained"])) == 3 + 3 * 1 + 3


@pytest.mark.slow  # a minute, and the memory that the streaming saves
def test_a_deep_model_and_many_images_in_a_gigabyte_and_sooner_than_the_stack() -> None:
    """32 blocks x 12 heads x 197 tokens: 64 images streamed; the stack, pair by pair, of four."""
    streamed, stacked = (measured_apart(count, work) for count, work in ((64, STREAMED), (4, STACKED)))
    print(f"streamed {streamed}, stacked {stacked}")
    assert streamed["mebibytes"] < 1024
    assert streamed["seconds"] < stacked["seconds"]


STREAMED = "build().measure(looked)"
STACKED = """
kept = []
look(model, looked.images, lambda block, maps: kept.append(maps["softmax"]))
stack = torch.stack(kept)
for p in range(len(stack)):
    for q in range(p):
        pairs = torch.cosine_similarity(stack[p], stack[q], dim=-2)
        pairs.mean(), (pairs > 0.5).double().mean()
"""
MEASURE = """
import json, resource, sys, time
import torch
sys.path.insert(0, sys.argv[3])
from tests.analysis.subjects import subject
from tests.analysis.test_similarity import build, look
from tests.tiny import patch_stem, tiny_vit
torch.set_num_threads(1)
model = tiny_vit(image_size=224, stem=patch_stem(16), depth=32, dim=192, num_heads=12).eval()
looked = subject(model, count=int(sys.argv[1]), size=224)
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
exec(sys.argv[2])
seconds = (time.perf_counter() - start) / len(looked.images)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(json.dumps({"seconds": round(seconds, 4), "mebibytes": round(grown)}))
"""


def measured_apart(count: int, work: str) -> dict[str, float]:
    """Seconds an image, and how much the largest memory of a process of its own has grown."""
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", MEASURE, str(count), work, root]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)
