"""Foreign names of a ResNet backbone: torchvision's own, which are ours, with a classifier that a detector lacks."""

from vitexp.checkpoint.origin import Origin, Tensors


def to_timm(tensors: Tensors) -> Tensors:
    """Our names as timm's, which are torchvision's too."""
    return dict(tensors)


ORIGINS = (
    Origin(
        name="torchvision or timm",
        marker=r"^fc\.(weight|bias)$",
        position_method="official",
        translate=to_timm,
        dropped=r"^fc\.|\.num_batches_tracked$",
    ),
)
