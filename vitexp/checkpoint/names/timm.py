"""Names of the tensors of `model=timm`: timm's own, which stand behind `net.` here."""

from vitexp.checkpoint.origin import Origin, Tensors

PREFIX = "net."


def from_library(tensors: Tensors) -> Tensors:
    """The library's names as ours."""
    return {f"{PREFIX}{name}": tensor for name, tensor in tensors.items()}


def to_timm(tensors: Tensors) -> Tensors:
    """Our names as timm's."""
    return {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}


ORIGINS = (Origin(name="timm", marker=r"^(?!net\.)", position_method="timm", translate=from_library),)
