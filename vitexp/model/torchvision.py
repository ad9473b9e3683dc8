"""Any classifier of torchvision by its name; weights come by `checkpoint=`."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn
from torchvision import models

from vitexp.model.library import Library, refused, require_name


class Torchvision(Library):
    """`torchvision.models.get_model(name)` for these classes, its first convolution for the images' channels.

    Args:
        name: as `torchvision.models.list_models(module=torchvision.models)` has it.
        options: more of what the model takes, such as image_size of a vit_b_16.

    Raises:
        ConfigError: torchvision has no such classifier, or it does not take the options.
    """

    family: ClassVar[str] = "torchvision"

    def __init__(self, *, name: str, in_channels: int, num_classes: int, options: Mapping[str, Any] | None) -> None:
        require_name(name, models.list_models(module=models), library="torchvision")
        try:
            net = models.get_model(name, weights=None, num_classes=num_classes, **(options or {}))
        except TypeError as error:
            raise refused(error, library="torchvision", name=name, options=options) from error
        path, first = next((path, part) for path, part in net.named_modules() if isinstance(part, nn.Conv2d))
        if first.in_channels != in_channels:
            sizes: dict[str, Any] = {"kernel_size": first.kernel_size, "stride": first.stride, "padding": first.padding}
            new = nn.Conv2d(in_channels, first.out_channels, **sizes, bias=first.bias is not None)
            net.set_submodule(path, new)
        linear = [part for part in net.modules() if isinstance(part, nn.Linear)]
        last = linear[-1] if linear and linear[-1].out_features == num_classes else None
        super().__init__(net, classifier=last, num_classes=num_classes)
