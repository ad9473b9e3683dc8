"""The frozen ResNet: equal to torchvision's, before and after folding; what trains; what stays."""

import pytest
import torch
from torchvision.models import resnet
from torchvision.ops.misc import FrozenBatchNorm2d

from tests.tiny_detr import tiny_resnet
from vitexp.errors import ConfigError
from vitexp.model.resnet import FrozenBottleneck, ResNet


def reference(model: ResNet, dilated: bool) -> resnet.ResNet:
    theirs = resnet.ResNet(
        resnet.Bottleneck,
        [1, 1, 1, 1],
        norm_layer=FrozenBatchNorm2d,
        replace_stride_with_dilation=[False, False, dilated],
    )
    theirs.fc = torch.nn.Identity()
    theirs.load_state_dict(model.state_dict())
    return theirs


def torchvision_map(model: resnet.ResNet, images: torch.Tensor) -> torch.Tensor:
    x = model.maxpool(model.relu(model.bn1(model.conv1(images))))
    return model.layer4(model.layer3(model.layer2(model.layer1(x))))


@pytest.mark.parametrize("dilated", [False, True])
def test_equals_torchvision_and_itself_folded(dilated: bool) -> None:
    model, images = tiny_resnet(dilated=dilated), torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = torchvision_map(reference(model, dilated), images)
        (maps,) = model.features(images)
        assert maps.shape == (2, 2048, 64 // model.strides[0], 96 // model.strides[0])
        scale = float(expected.std())
        torch.testing.assert_close(maps, expected, atol=1e-5 * scale, rtol=1e-5)
        model.fuse()
        model.fuse()
        torch.testing.assert_close(model.features(images)[0], expected, atol=1e-5 * scale, rtol=1e-5)
    assert not any(isinstance(module, FrozenBatchNorm2d) for module in model.modules())


def test_gradients_equal_torchvision() -> None:
    model, images = tiny_resnet(), torch.randn(1, 3, 64, 64)
    theirs = reference(model, dilated=False)
    model.features(images)[0].square().mean().backward()
    torchvision_map(theirs, images).square().mean().backward()
    others = dict(theirs.named_parameters())
    for name, parameter in model.named_parameters():
        frozen = name.startswith(("conv1", "layer1"))
        assert (parameter.grad is None) == frozen, name
        if not frozen:
            grad = others[name].grad
            assert grad is not None
            torch.testing.assert_close(parameter.grad, grad, atol=1e-5 * float(grad.abs().max()), rtol=1e-4)


def test_training_leaves_the_norms_alone() -> None:
    model = tiny_resnet().train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.features(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    assert isinstance(model.layer1[0], FrozenBottleneck)


def test_unknown_depth() -> None:
    with pytest.raises(ConfigError, match="has 50 or 101 layers"):
        ResNet(depth=18, dilated=False)
