"""ResNet-50 and -101 as a detector's backbone, their batch norms frozen (He et al. 2016; DETR, section 4).

torchvision's network without its classifier, under its names, so that its published weights load as they are. A frozen
norm is affine with fixed numbers, so it is folded into its convolution on the fly: the same function as torchvision's
(to rounding), with a pass over each map less, in training too.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet
from torchvision.ops.misc import FrozenBatchNorm2d

from vitexp.errors import ConfigError
from vitexp.layer.conv_norm import fused_conv

_BLOCKS = {50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}
# Never trained: the authors freeze the stem and the first stage.
_FROZEN = ("conv1", "layer1")


class ResNet(nn.Module):
    """Images (B, 3, H, W) to one map (B, 2048, H / 32, W / 32); H / 16 where the last stage is `dilated` (DC5)."""

    family: ClassVar[str] = "resnet"
    head_names: ClassVar[tuple[str, ...]] = ()
    position_tables: ClassVar[dict[str, int]] = {}
    num_classes = 0

    def __init__(self, *, depth: int, dilated: bool) -> None:
        super().__init__()
        if depth not in _BLOCKS:
            raise ConfigError(f"model.backbone.depth={depth} is not known; a ResNet backbone has 50 or 101 layers")
        whole = resnet.ResNet(
            FrozenBottleneck,
            _BLOCKS[depth],
            norm_layer=FrozenBatchNorm2d,
            replace_stride_with_dilation=[False, False, dilated],
        )
        self.conv1, self.bn1, self.maxpool = whole.conv1, whole.bn1, whole.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = whole.layer1, whole.layer2, whole.layer3, whole.layer4
        self.strides = (16,) if dilated else (32,)
        self.dim = 2048
        for name in _FROZEN:
            self.get_submodule(name).requires_grad_(False)

    def features(self, images: Tensor) -> list[Tensor]:
        """The last stage's map, for a detector."""
        x = self.maxpool(F.relu(normed(images, self.conv1, self.bn1), inplace=True))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return [x]

    def adapt(self, name: str, tensor: Tensor) -> tuple[Tensor, str] | None:
        """Adapt nothing: no tensor here depends on the image size."""
        return None

    def fuse(self) -> None:
        """Fold the norms for good, in place; calling it again changes nothing."""
        self.conv1, self.bn1 = folded(self.conv1, self.bn1)
        for module in self.modules():
            if isinstance(module, FrozenBottleneck):
                module.fuse()


class FrozenBottleneck(resnet.Bottleneck):
    """torchvision's bottleneck with its frozen norms folded as it runs."""

    downsample: Any

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(normed(x, self.conv1, self.bn1), inplace=True)
        out = F.relu(normed(out, self.conv2, self.bn2), inplace=True)
        out = normed(out, self.conv3, self.bn3)
        if self.downsample is not None:
            x = normed(x, self.downsample[0], self.downsample[1])
        return F.relu(out.add_(x), inplace=True)

    def fuse(self) -> None:
        """Fold the norms into the convolutions for good."""
        for conv, norm in (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")):
            fused, rest = folded(self.get_submodule(conv), self.get_submodule(norm))
            setattr(self, conv, fused)
            setattr(self, norm, rest)
        if self.downsample is not None:
            self.downsample = nn.Sequential(*folded(self.downsample[0], self.downsample[1]))


def normed(x: Tensor, conv: Any, norm: nn.Module) -> Tensor:
    """norm(conv(x)) of a frozen norm, its scale multiplied into the weights instead of the map."""
    if not isinstance(norm, FrozenBatchNorm2d):
        out: Tensor = norm(conv(x))
        return out
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    weight = conv.weight * scale[:, None, None, None]
    return F.conv2d(x, weight, shift, conv.stride, conv.padding, conv.dilation, conv.groups)


@torch.no_grad()
def folded(conv: nn.Module, norm: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The pair with the norm inside the convolution."""
    if not isinstance(norm, FrozenBatchNorm2d):
        return conv, norm
    return fused_conv(conv, norm), nn.Identity()  # type: ignore[arg-type]
