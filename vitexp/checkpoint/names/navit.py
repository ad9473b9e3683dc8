"""Foreign names of a NaViT's tensors: there are none.

The authors have published neither code nor weights, and timm's NaFlexVit norms and pools in another way.
"""

from vitexp.checkpoint.origin import Origin, Tensors
from vitexp.errors import CheckpointError

ORIGINS: tuple[Origin, ...] = ()


def to_timm(tensors: Tensors) -> Tensors:
    """Refuse: timm has no NaViT.

    Raises:
        CheckpointError: always.
    """
    raise CheckpointError("timm has no NaViT (its NaFlexVit is another model); use to=safetensors or to=onnx")
