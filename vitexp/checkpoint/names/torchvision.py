"""Names of the tensors of `model=torchvision`: torchvision's own, which stand behind `net.` here."""

from vitexp.checkpoint.names.timm import from_library
from vitexp.checkpoint.origin import Origin, Tensors
from vitexp.errors import CheckpointError


def to_timm(tensors: Tensors) -> Tensors:
    """Refuse: timm names most of torchvision's models in another way.

    Raises:
        CheckpointError: always.
    """
    raise CheckpointError("to=timm writes timm's models, and this one is torchvision's; use to=safetensors or to=onnx")


ORIGINS = (Origin(name="torchvision", marker=r"^(?!net\.)", position_method="official", translate=from_library),)
