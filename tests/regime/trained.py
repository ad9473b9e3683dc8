"""Applying a shipped regime to a small model and training it a little; not a test itself."""

import copy
from functools import partial
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from tests.tiny import conv_stem, patch_stem, tiny_vit
from vitexp.attention.base import flags_of
from vitexp.attention.softmax import Softmax
from vitexp.build import make
from vitexp.config.compose import conf_dir
from vitexp.optim.group import parameter_groups

# The attentions that memory works on, by the flags of their classes.
MAPS = [
    path.stem
    for path in sorted((conf_dir() / "attention").glob("*.yaml"))
    if (variant := flags_of(make(OmegaConf.load(path)))).takes_mask and variant.takes_context
]


def regime(name: str, **options: Any) -> Any:
    """The regime of conf/regime/<name>.yaml, with some of its keys changed."""
    config = OmegaConf.merge(OmegaConf.load(conf_dir() / "regime" / f"{name}.yaml"), options)
    return make(config)


def encoder(attention: str = "softmax", **options: Any) -> Any:
    """A small encoder with numbers that tell tensors apart, dropout to catch, and a batch norm that could drift."""
    variant = make(OmegaConf.load(conf_dir() / "attention" / f"{attention}.yaml"))
    kept = {"stem": conv_stem(4), "dropout": 0.2, "drop_path_rate": 0.2, "attention": variant, **options}
    model = tiny_vit(**kept)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def random_images(count: int = 4, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def trainable(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def train(model: nn.Module, *, steps: int = 3, lr: float = 0.5, seed: int = 0, bf16: bool = False) -> nn.Module:
    """A few steps as a run takes them: groups, decay, train mode; then eval mode again."""
    groups = parameter_groups(model, lr=lr, weight_decay=0.1)
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    model.train()
    for index in range(steps):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            logits = model(random_images(seed=100 * seed + index))
        loss = nn.functional.cross_entropy(logits.float(), torch.arange(4) % 3)
        loss.backward()
        optimizer.step()
    return model.eval()


def assert_only_moves(model: nn.Module, names: set[str]) -> None:
    """After some steps exactly the tensors `names` have changed; no other has a gradient."""
    before = copy.deepcopy(model.state_dict())
    train(model)
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == names
    assert {name for name, p in model.named_parameters() if p.grad is not None} == names


def vit_b32(num_classes: int = 100) -> Any:
    """ViT-B/32 on the meta device."""
    with torch.device("meta"):
        return tiny_vit(
            image_size=224,
            stem=patch_stem(32),
            dim=768,
            depth=12,
            num_heads=12,
            num_classes=num_classes,
            attention=partial(Softmax, qkv_bias=True, temperature=1.0),
        )
