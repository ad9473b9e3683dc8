"""Which way images become batches: `data.sampler`."""

from vitexp.data.multiscale import MultiScale
from vitexp.data.pack.order import Packing
from vitexp.errors import ConfigError

SAMPLERS = ("fixed", "multi_scale", "packed")


def sampling(*, sampler: str, packing: Packing, multi_scale: MultiScale) -> Packing | MultiScale | None:
    """The settings in force; None for batches of images of one size.

    Raises:
        ConfigError: an unknown sampler.
    """
    if sampler not in SAMPLERS:
        raise ConfigError(f"data.sampler={sampler} is unknown; it is one of {', '.join(SAMPLERS)}; use fixed")
    return {"fixed": None, "multi_scale": multi_scale, "packed": packing}[sampler]
