"""Every kernel gives what the bool mask gives, and the right one is chosen for a device."""

from typing import Any

import pytest
import torch

from vitexp.attention import documents
from vitexp.attention.base import masked_softmax
from vitexp.attention.documents import FLAT, KERNELS, Documents, choose_kernel, split_attention
from vitexp.errors import ConfigError

ROWS = [[5, 5, 7], [11, 2], [3, 3, 3, 3]]
LENGTH, HEADS, WIDTH = 32, 2, 16
SCALE = 0.3


def padded(device: Any = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    owner = torch.full((len(ROWS), LENGTH), -1)
    for row, counts in enumerate(ROWS):
        marks = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        owner[row, : len(marks)] = marks
    torch.manual_seed(0)
    return torch.randn(3, len(ROWS), HEADS, LENGTH, WIDTH).to(device), owner.to(device)


def by_mask(qkv: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
    """The plain map, of real tokens only: (tokens, H, d), row by row."""
    q, k, v = qkv.float()
    mask = Documents("mask", owner, (), owner[:, :1] >= 0).dense
    read = masked_softmax(SCALE * q @ k.mT, mask) @ v
    return read.transpose(1, 2)[owner >= 0]


def by_kernel(kernel: str, qkv: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
    counts = [count for row in ROWS for count in row]
    if kernel in FLAT:
        flat = qkv.transpose(2, 3)[:, owner >= 0].transpose(1, 2)[:, None]  # (3, 1, H, tokens, d)
        marks = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(owner.device)[None]
        which = Documents(kernel, marks, counts, torch.ones(1, len(counts), dtype=torch.bool))
        return which.attention(*flat, scale=SCALE, dropout_rate=0.0)[0].transpose(0, 1)
    which = Documents(kernel, owner, (), owner[:, :1] >= 0)
    return which.attention(*qkv, scale=SCALE, dropout_rate=0.0).transpose(1, 2)[owner >= 0]


@pytest.mark.parametrize("kernel", ["mask", "split", "jagged"])
def test_kernels_of_a_cpu_equal_the_map(kernel: str) -> None:
    qkv, owner = padded()
    qkv.requires_grad_()
    results = []
    for read in (by_mask(qkv, owner), by_kernel(kernel, qkv, owner)):
        (gradient,) = torch.autograd.grad(read.square().sum(), qkv)
        results.append((read, gradient))
    torch.testing.assert_close(results[1][0], results[0][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(results[1][1], results[0][1], atol=1e-5, rtol=1e-5)


@pytest.mark.slow  # seconds, for what torch imports
@pytest.mark.filterwarnings("ignore")  # torch warns that it is slow when not compiled
def test_flex_without_a_gradient() -> None:
    qkv, owner = padded()
    with torch.no_grad():
        torch.testing.assert_close(by_kernel("flex", qkv, owner), by_mask(qkv, owner), atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_of_a_gpu_equal_the_map(kernel: str) -> None:
    half = kernel == "varlen"
    if half and not documents.has_varlen():
        pytest.skip("this torch or device has no variable-length kernel")
    qkv, owner = padded("cuda")
    qkv = (qkv.to(torch.bfloat16) if half else qkv).requires_grad_()
    read, expected = by_kernel(kernel, qkv, owner), by_mask(qkv, owner)
    close = {"atol": 2e-2, "rtol": 2e-2} if half else {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(read.float(), expected, **close)
    (gradient,) = torch.autograd.grad(read.float().square().sum(), qkv)
    (plain,) = torch.autograd.grad(expected.square().sum(), qkv)
    torch.testing.assert_close(gradient, plain, **close)


def test_tokens_of_images_and_padding() -> None:
    which = Documents("mask", torch.tensor([[0, 0, 1, -1]]), (), torch.ones(1, 2, dtype=torch.bool))
    assert which.of_image.int().tolist() == [[[1, 1, 0, 0], [0, 0, 1, 0]]]
    assert which.dense.int().tolist() == [[[[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]]]


def test_one_query_an_image_pools_it() -> None:
    counts = [3, 3, 5, 2, 2]
    torch.manual_seed(0)
    k, v, q = (torch.randn(1, HEADS, tokens, WIDTH) for tokens in (sum(counts), sum(counts), len(counts)))
    read = split_attention(q, k, v, counts, torch.nn.functional.scaled_dot_product_attention)
    for image, (mine, values) in enumerate(zip(k.split(counts, dim=2), v.split(counts, dim=2), strict=True)):
        weights = (q[:, :, image, None] @ mine.mT / WIDTH**0.5).softmax(-1)
        torch.testing.assert_close(read[:, :, image, None], weights @ values)


def chosen(asked: str = "auto", device: str = "cpu", **options: bool) -> str:
    usual = {"half": False, "trains": True, "dropout": False, "documents": True}
    return choose_kernel(asked, device=torch.device(device), **{**usual, **options})


def test_what_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen() == "split"
    assert chosen(documents=False) == "mask"
    assert chosen(device="cuda") == "flex"
    assert chosen(device="mps") == "mask"
    monkeypatch.setattr(documents, "has_varlen", lambda: True)
    assert chosen(device="cuda", half=True) == "varlen"
    assert chosen(device="cuda", half=True, dropout=True) == "mask"
    assert chosen("jagged") == "jagged"


@pytest.mark.parametrize(
    ("asked", "options", "needs"),
    [
        ("flex", {}, "a CUDA device in training"),
        ("varlen", {}, "half precision"),
        ("split", {"documents": False}, "an attention over softmax"),
    ],
)
def test_what_cannot_run_here_says_what_it_needs(asked: str, options: dict[str, bool], needs: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"model\.kernel={asked} cannot run on cpu .*{needs}.*; use model.kernel=auto"
    ):
        chosen(asked, **options)
    assert chosen("flex", trains=False) == "flex"
