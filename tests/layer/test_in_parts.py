"""A batch in parts: the same output, and whole where it must be."""

import pytest
import torch

from vitexp.layer import in_parts as module
from vitexp.layer.in_parts import in_parts


@pytest.fixture
def sizes(monkeypatch):
    monkeypatch.setattr(module, "PART_BYTES", 100)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    return []


def run(sizes, images, bytes_per_image=40):
    def double(few):
        sizes.append(len(few))
        return few * 2

    return in_parts(double, images, bytes_per_image=bytes_per_image)


@pytest.mark.parametrize(("bytes_per_image", "expected"), [(40, [2, 2, 1]), (1000, [1] * 5), (20, [5])])
def test_parts_by_size(sizes, bytes_per_image, expected):
    images = torch.randn(5, 3)
    with torch.no_grad():
        assert torch.equal(run(sizes, images, bytes_per_image), images * 2)
    assert sizes == expected


def test_whole_where_gradients_are_wanted(sizes):
    run(sizes, torch.randn(5, 3))
    assert sizes == [5]


@pytest.mark.parametrize("recorder", ["torch.compiler.is_compiling", "torch.jit.is_tracing"])
def test_whole_where_the_calls_are_recorded(sizes, monkeypatch, recorder):
    monkeypatch.setattr(recorder, lambda: True)
    images = torch.randn(5, 3)
    with torch.no_grad():
        assert torch.equal(run(sizes, images), images * 2)
    assert sizes == [5]


def test_no_image(sizes):
    with torch.no_grad():
        assert run(sizes, torch.randn(0, 3)).shape == (0, 3)
