"""Two CPU processes, each with half of the images, have the loss and the gradient of one with all of them."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel

from tests.detection.test_criterion import make
from tests.tiny_detr import tiny_detr, tiny_resnet


def batch() -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
    """Four images with 3, 0, 1 and 2 objects: the halves differ in every count."""
    generator = torch.Generator().manual_seed(1)
    targets = [
        {
            "labels": torch.randint(5, (count,), generator=generator),
            "boxes_cxcywh": 0.2 + 0.3 * torch.rand(count, 4, generator=generator),
        }
        for count in (3, 0, 1, 2)
    ]
    return torch.randn(4, 3, 64, 64, generator=generator), targets


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def train_half(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model: Any = DistributedDataParallel(tiny_detr(backbone=tiny_resnet()))
    images, targets = batch()
    mine = slice(2 * rank, 2 * rank + 2)
    loss, parts, _ = make()(*model(images[mine]), targets[mine])
    loss.backward()
    torch.save({"loss": loss.detach(), "parts": parts, "grads": gradients(model.module)}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_one_on_the_joined_batch(tmp_path: Path) -> None:
    model = tiny_detr(backbone=tiny_resnet())
    images, targets = batch()
    loss, parts, _ = make()(*model(images), targets)
    loss.backward()
    torch.multiprocessing.spawn(train_half, args=(str(tmp_path),), nprocs=2)
    both = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert not torch.allclose(both[0]["loss"], both[1]["loss"])
    torch.testing.assert_close((both[0]["loss"] + both[1]["loss"]) / 2, loss.detach())
    torch.testing.assert_close((both[0]["parts"] + both[1]["parts"]) / 2, parts)
    for name, grad in gradients(model).items():
        scale = float(grad.abs().max())
        torch.testing.assert_close(both[0]["grads"][name], grad, atol=1e-4 * scale, rtol=1e-4)
