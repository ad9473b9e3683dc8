"""A small DeepViT, and the authors' file and forward pass for it, written out; not a test itself."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.tiny import patch_stem
from vitexp.attention.reattention import Reattention
from vitexp.attention.softmax import Softmax
from vitexp.layer.deep_stem import DeepStem
from vitexp.model.deepvit import DeepViT, Layout

DIM, HEADS, DEPTH, PATCH, CLASSES = 24, 3, 3, 4, 5
REATTENTION = partial(Reattention, qkv_bias=True, temperature=1.0, theta="random", transform_scale=False)
SOFTMAX = partial(Softmax, qkv_bias=True, temperature=1.0)


def tiny_deepvit(
    *,
    plain: int = 0,
    scale: float = 1.0,
    cnn: bool = False,
    image_size: int = 16,
    attention: Any = REATTENTION,
    pool: str = "token",
    drop_path_rate: float = 0.0,
) -> DeepViT:
    torch.manual_seed(0)
    return DeepViT(
        image_size=image_size,
        in_channels=3,
        stem=partial(DeepStem, channels=6, patch_size=PATCH) if cnn else patch_stem(PATCH),
        dim=DIM,
        depth=DEPTH,
        num_heads=HEADS,
        mlp_ratio=3.0,
        attention=attention,
        num_classes=CLASSES,
        pool=pool,
        layout=Layout(plain_blocks=plain, plain_attention=SOFTMAX, scale=scale, transform_scale=False),
        drop_path_rate=drop_path_rate,
    )


def official_state(*, plain: int = 0, scale: float = 1.0, cnn: bool = False) -> dict[str, Tensor]:
    """A state dict as the authors' DeepVisionTransformer has it, random values; `scale` leaves no trace in it."""
    generator = torch.Generator().manual_seed(3)

    def array(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.2

    def norm(name: str, size: int, *, batch: bool = False) -> dict[str, Tensor]:
        affine = {f"{name}.weight": 1 + array(size), f"{name}.bias": array(size)}
        if batch:
            affine[f"{name}.running_mean"] = array(size)
            affine[f"{name}.running_var"] = array(size).abs() + 0.01
            affine[f"{name}.num_batches_tracked"] = torch.tensor(7)
        return affine

    def linear(name: str, *shape: int) -> dict[str, Tensor]:
        return {f"{name}.weight": array(*shape), f"{name}.bias": array(shape[0])}

    state = {"cls_token": array(1, 1, DIM), "pos_embed": array(1, 17, DIM), **norm("norm", DIM)}
    state |= linear("head", CLASSES, DIM) | linear("patch_embed.proj", DIM, 6 if cnn else 3, PATCH, PATCH)
    if cnn:
        state |= {"patch_embed.conv1.weight": array(6, 3, 7, 7), "patch_embed.conv2.weight": array(6, 6, 3, 3)}
        state |= norm("patch_embed.bn1", 6, batch=True) | norm("patch_embed.bn2", 6, batch=True)
    for index in range(DEPTH):
        block = f"blocks.{index}"
        state |= norm(f"{block}.norm1", DIM) | norm(f"{block}.norm2", DIM)
        state |= linear(f"{block}.attn.qkv", 3 * DIM, DIM) | linear(f"{block}.attn.proj", DIM, DIM)
        state |= linear(f"{block}.mlp.fc1", 3 * DIM, DIM) | linear(f"{block}.mlp.fc2", DIM, 3 * DIM)
        if index >= plain:
            state |= linear(f"{block}.attn.reatten_matrix", HEADS, HEADS, 1, 1)
            state |= norm(f"{block}.attn.var_norm", HEADS, batch=True)
    return state


def official_logits(state: dict[str, Tensor], images: Tensor, *, training: bool, scale: float) -> Tensor:
    """The authors' forward pass: x + f(norm(a x)) / a in each block, a = scale; no drop path."""

    def layer_norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (DIM,), state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)

    def batch_norm(x: Tensor, name: str) -> Tensor:
        mean, var = state[f"{name}.running_mean"].clone(), state[f"{name}.running_var"].clone()
        return F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"], training)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def attention(x: Tensor, name: str) -> Tensor:
        q, k, v = linear(x, f"{name}.qkv").unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        maps = (q @ k.mT * (DIM // HEADS) ** -0.5).softmax(-1)
        if f"{name}.reatten_matrix.weight" in state:
            maps = F.conv2d(maps, state[f"{name}.reatten_matrix.weight"], state[f"{name}.reatten_matrix.bias"])
            maps = batch_norm(maps, f"{name}.var_norm")
        return linear((maps @ v).transpose(1, 2).flatten(2), f"{name}.proj")

    if "patch_embed.conv1.weight" in state:
        images = F.relu(batch_norm(F.conv2d(images, state["patch_embed.conv1.weight"], padding=3), "patch_embed.bn1"))
        images = F.relu(batch_norm(F.conv2d(images, state["patch_embed.conv2.weight"], padding=1), "patch_embed.bn2"))
    x = F.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=PATCH)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x.flatten(2).mT], dim=1) + state["pos_embed"]
    for index in range(DEPTH):
        block = f"blocks.{index}"
        x = x + attention(layer_norm(scale * x, f"{block}.norm1"), f"{block}.attn") / scale
        hidden = F.gelu(linear(layer_norm(scale * x, f"{block}.norm2"), f"{block}.mlp.fc1"))
        x = x + linear(hidden, f"{block}.mlp.fc2") / scale
    return linear(layer_norm(x, "norm")[:, 0], "head")
