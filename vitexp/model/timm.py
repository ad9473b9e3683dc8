"""Any image model of timm (Wightman, "PyTorch Image Models", 2019) by its name; weights come by `checkpoint=`."""

from collections.abc import Mapping
from typing import Any, ClassVar

from vitexp.errors import require_extra
from vitexp.model.library import Library, refused, require_name


class Timm(Library):
    """`timm.create_model(name)` for these images and classes.

    Args:
        name: as `timm.list_models()` has it.
        image_size: pixels a side; a model that is built for one size is built for this one.
        options: more of what `create_model` takes, such as patch_size.

    Raises:
        ConfigError: timm is not installed, has no such model, or it does not take the options.
    """

    family: ClassVar[str] = "timm"

    def __init__(
        self, *, name: str, image_size: int, in_channels: int, num_classes: int, options: Mapping[str, Any] | None
    ) -> None:
        require_extra("timm", "timm", asked="model=timm")
        import timm

        require_name(name.partition(".")[0], timm.list_models(), library="timm")
        published = timm.get_pretrained_cfg(name, allow_unregistered=False)
        sized = {"img_size": image_size} if published is not None and published.fixed_input_size else {}
        given: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_channels, **sized}
        try:
            # Nothing is read but by checkpoint=, which looks at what it reads: an option that asks for more is refused.
            net = timm.create_model(name, pretrained=False, checkpoint_path="", **given, **(options or {}))
        except TypeError as error:
            raise refused(error, library="timm", name=name, options=options) from error
        classifier: Any = net.get_classifier
        super().__init__(net, classifier=classifier(), num_classes=num_classes)
