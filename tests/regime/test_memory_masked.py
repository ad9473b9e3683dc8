"""Masked memory: the base answers as before, to the bit, whatever is added and trained; the new task is the paper's."""

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.regime.trained import MAPS, assert_only_moves, encoder, random_images, regime, train, trainable
from vitexp.build import build_model
from vitexp.config.compose import compose
from vitexp.regime.masked import MaskedMemory, TaskMemory, attention_mask
from vitexp.regime.memory_masked import new_task

NAMES = {f"tasks.0.{name}" for name in ("class_token", "memory", "head.weight", "head.bias")}


def masked(attention: str = "softmax", **options: object) -> MaskedMemory:
    return regime("memory_masked", std=1.0, **options)(encoder(attention), num_classes=3)


def random_task(base: nn.Module, seed: int, *, num_tokens: int = 5, num_classes: int = 3) -> TaskMemory:
    """A task as if trained: values everywhere, and large ones."""
    torch.manual_seed(seed)
    task = new_task(base, num_classes=num_classes, num_tokens=num_tokens, std=1.0, class_token="random")
    nn.init.normal_(task.head.weight)
    return task


def joined(base: nn.Module, seeds: list[int], reads: list[list[int]] | None = None) -> MaskedMemory:
    tasks = [random_task(base, seed, num_tokens=seed, num_classes=2 + seed) for seed in seeds]
    reads = reads or [[] for _ in seeds]
    return MaskedMemory(base, tasks=tasks, names=[str(s) for s in seeds], reads=reads, memory_norm=True).eval()


def test_exactly_the_new_task_trains() -> None:
    model = masked()
    assert trainable(model) == NAMES
    assert_only_moves(model, NAMES)


@pytest.mark.parametrize("attention", MAPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("count", [1, 4])
def test_base_logits_stay_to_the_bit(attention: str, dtype: torch.dtype, count: int) -> None:
    """Before and after adding tasks."""
    plain = encoder(attention).to(dtype)
    images = random_images().to(dtype)
    before = plain(images)
    model = joined(copy.deepcopy(plain), list(range(1, count + 1)))
    assert torch.equal(model.answers(images)[""], before)
    assert torch.equal(model.base(images), before)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("count", [1, 4])
def test_base_logits_stay_through_training(count: int, bf16: bool) -> None:
    """20 steps in train mode, with and without autocast, of one task and of four one after the other."""
    base, kept = encoder(), copy.deepcopy(encoder())
    tasks: list[TaskMemory] = []
    for index in range(count):
        for earlier in tasks:
            earlier.requires_grad_(False)
        tasks.append(new_task(base, num_classes=3, num_tokens=5, std=0.02, class_token="copy"))
        names, reads = (
            [str(number) for number in range(index + 1)],
            [list(range(number)) for number in range(index + 1)],
        )
        model = MaskedMemory(base, tasks=tasks, names=names, reads=reads, memory_norm=True)
        train(model, steps=20 // count, seed=index, bf16=bf16)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        answers = model.answers(random_images())
        assert torch.equal(answers.pop(""), kept(random_images()))
        assert len(answers) == count
        assert all(logits.abs().max() > 0.1 for logits in answers.values())


@pytest.mark.parametrize("attention", MAPS)
@pytest.mark.parametrize(("memory_norm", "num_tokens"), [(True, 5), (False, 5), (True, 0)])
def test_the_class_token_reads_what_table_1_lets_it(attention: str, memory_norm: bool, num_tokens: int) -> None:
    """Against plain attention calls: base tokens over base tokens, then one query over all keys that it may see."""
    model = masked(attention, memory_norm=memory_norm, num_tokens=num_tokens).eval()
    nn.init.normal_(model.tasks[0].head.weight)
    base, task, images = model.base, model.tasks[0], random_images()
    x = base.embed(images)
    token = (task.class_token + base.position[:, :1]).expand(len(x), -1, -1)
    for index, block in enumerate(base.blocks):
        memory = task.memory[index].expand(len(x), -1, -1)
        seen = [block.norm1(x), block.norm1(token), block.norm1(memory) if memory_norm else memory]
        read = block.attention(torch.cat(seen, dim=1))[:, x.shape[1], None]
        x, token = block(x), token + read
        token = token + block.mlp(block.norm2(token))
    expected = task.head(base.norm(token[:, 0]))
    assert expected.std() > 0.1
    torch.testing.assert_close(model(images), expected, atol=1e-4, rtol=1e-4)


def naive_mask(tokens: int, counts: list[int], extends: bool) -> Tensor:
    """Table 1 as prose, one query and one key at a time."""
    kinds = [("base", 0)] * tokens + [("class", task) for task in range(len(counts))]
    keys = kinds + [("memory", task) for task, number in enumerate(counts) for _ in range(number)]
    mask = torch.zeros(len(kinds), len(keys), dtype=torch.bool)
    for row, (query, own) in enumerate(kinds):
        for column, (key, other) in enumerate(keys):
            if key == "base":
                mask[row, column] = True
            elif query == "class":
                mask[row, column] = other == own or (extends and other < own)
    return mask


@pytest.mark.parametrize("extends", [False, True])
@pytest.mark.parametrize(("tokens", "counts"), [(5, [1, 2]), (4, [3]), (2, [2, 0, 1, 4])])
def test_mask_is_the_papers_table(tokens: int, counts: list[int], extends: bool) -> None:
    reads = [list(range(task)) if extends else [] for task in range(len(counts))]
    mask = attention_mask(num_tokens=tokens, counts=counts, reads=reads)
    assert torch.equal(mask, naive_mask(tokens, counts, extends))
    assert mask.shape == (tokens + len(counts), tokens + len(counts) + sum(counts))


def test_mask_of_five_tokens_and_two_tasks() -> None:
    """The fact sheet's example, cell by cell."""
    rows = ["1111100000"] * 5 + ["1111110100", "1111101011"]
    expected = torch.tensor([[cell == "1" for cell in row] for row in rows])
    assert torch.equal(attention_mask(num_tokens=5, counts=[1, 2], reads=[[], []]), expected)


@pytest.mark.parametrize("attention", MAPS)
def test_joined_tasks_answer_as_alone_in_any_order(attention: str) -> None:
    base, images = encoder(attention), random_images()
    alone = {str(seed): joined(base, [seed])(images) for seed in (1, 2, 3)}
    for seeds in ([1, 2, 3], [3, 1, 2], [3, 2]):
        answers = joined(base, seeds).answers(images)
        for seed in map(str, seeds):
            assert alone[seed].std() > 0.1
            torch.testing.assert_close(answers[seed], alone[seed], atol=1e-5, rtol=1e-5)


def test_extension_reads_earlier_tasks_and_no_later_ones() -> None:
    base, images = encoder(), random_images()
    model = joined(base, [1, 2, 3], reads=[[], [0], [0, 1]])
    before = model.answers(images)
    assert (before["2"] - joined(base, [1, 2, 3]).answers(images)["2"]).abs().max() > 1e-3
    with torch.no_grad():
        model.tasks[1].memory.neg_()
    after = model.answers(images)
    for name, changes in (("", False), ("1", False), ("2", True), ("3", True)):
        assert ((before[name] - after[name]).abs().max() > 1e-3) == changes, name
        assert torch.equal(before[name], after[name]) != changes, name


@pytest.mark.parametrize("attention", MAPS)
def test_memory_keys_computed_once_give_the_same(attention: str) -> None:
    model = joined(encoder(attention), [1, 2])
    images = random_images()
    fresh = model.answers(images)
    model.base.fuse()
    folded = model.answers(images)
    model.fuse()
    assert model.cached_k.shape == (2, 2 * 3, 8)
    for name, logits in model.answers(images).items():
        torch.testing.assert_close(logits, folded[name], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(logits, fresh[name], atol=1e-4, rtol=1e-4)
    assert not any(name.startswith("cached") for name in model.state_dict())
    assert model.train().cached_k is None


def test_selecting_a_task_changes_the_answer_of_forward() -> None:
    model, images = joined(encoder(), [1, 2]), random_images()
    for index, name in enumerate(("1", "2")):
        model.selected = index
        torch.testing.assert_close(model(images), model.answers(images)[name], atol=1e-5, rtol=1e-5)
        assert model.num_classes == model(images).shape[1]
    alone = model.answers(images, base=False)
    assert list(alone) == ["1", "2"]
    for name, logits in model.answers(images).items():
        if name:
            torch.testing.assert_close(alone[name], logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["vit_nano", "deepvit_16b"])
def test_a_copied_class_token_enters_where_the_bases_own_does(name: str) -> None:
    cfg = compose([f"model={name}", "data=fake", "model.pool=token", "model.depth=1"])
    base = build_model(cfg).eval()
    images = torch.randn(2, 3, 32, 32)
    model = regime("memory_masked")(base, num_classes=3)
    x = base.embed(images)
    torch.testing.assert_close(model._start(len(x), x.dtype), x[:, :1])


@pytest.mark.parametrize("attention", MAPS)
@pytest.mark.parametrize("reads", [[[]], [[], [0]]], ids=["alone", "extension"])
def test_the_base_embedded_once_gives_the_same_to_the_bit(attention: str, reads: list[list[int]]) -> None:
    model, images = joined(encoder(attention), list(range(2, 2 + len(reads))), reads=reads).train(), random_images()
    kept = model.embed_frozen(images)
    assert kept.shape == (4, 2 * 2 * 17 * 16)
    gradients = []
    for given in (images, kept):
        model.zero_grad()
        logits = model(given)
        logits.square().sum().backward()
        gradients.append([logits, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(gradients[0]) > 4
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_no_gradient_enters_the_base_stream() -> None:
    model = masked().train()
    x, tokens = model.encode(random_images(), keep_base=True)
    assert not x.requires_grad
    assert tokens.requires_grad
    assert not any(module.training for module in model.base.modules())


def test_a_random_class_token_starts_at_the_spread_of_memory() -> None:
    torch.manual_seed(0)
    task = regime("memory_masked", class_token="random")(encoder(dim=256), num_classes=3).tasks[0]
    assert task.class_token.std().item() == pytest.approx(0.02, rel=0.2)
    assert task.memory.std().item() == pytest.approx(0.02, rel=0.2)
