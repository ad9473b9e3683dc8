"""The names that a configuration may call: a configuration is data, perhaps a stranger's.

`_target_` may name a class of the packages below, a function of a regime or a schedule, or one of a few torch and
optimizer names: by the place where it is defined, so that `vitexp.cli.os.system` is no way round. To that comes what
the user trusts (extensions.py). The same holds for shipped files, overrides, the rules of a run, and what the header of
a weights file says.
"""

import inspect
import re
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from vitexp.config.extensions import how_to_trust, is_trusted
from vitexp.errors import ConfigError

PACKAGES = ("analysis", "attention", "data", "detection", "layer", "model", "optim", "regime", "task")
WITH_FUNCTIONS = ("optim", "regime")
TARGETS = {
    "torch.optim.AdamW",
    "torch.optim.Adam",
    "torch.optim.NAdam",
    "torch.optim.SGD",
    "torch.nn.BatchNorm2d",
    "torch.nn.LayerNorm",
    "pytorch_optimizer.Lamb",
    "pytorch_optimizer.Lion",
    "vitexp.data.sampling.sampling",  # the one function of the data that a file names
}

_ONLY_OURS = (
    f"a configuration may name only classes of vitexp or {', '.join(sorted(TARGETS))}; if you know who wrote it and"
    " want its code to run, say trust=true"
)

# Targets of configurations that runs have kept from before their modules moved -> where they are now.
MOVED = {
    "vitexp.data.augment.Augment": "vitexp.data.augment.settings.Augment",
    "vitexp.data.augment.Affine": "vitexp.data.augment.settings.Affine",
    "vitexp.data.box_augment.BoxAugment": "vitexp.data.box.augment.BoxAugment",
    "vitexp.data.pack_order.Packing": "vitexp.data.pack.order.Packing",
    "vitexp.data.resolution.Resolution": "vitexp.data.pack.resolution.Resolution",
    "vitexp.data.drop.Drop": "vitexp.data.pack.drop.Drop",
    "vitexp.data.base.Batches": "vitexp.data.loader.Batches",
}


def follow_moves(text: str) -> str:
    """The YAML of a configuration with today's targets in place of those of earlier versions."""
    return re.sub(r"\b_target_: ([\w.]+)", lambda found: f"_target_: {MOVED.get(found[1], found[1])}", text)


def require_known(node: Any, *, trust: bool) -> None:
    """Look at every `_target_` in plain containers before any of them is called.

    With `trust` those that are not known are named on the terminal and let through.

    Raises:
        ConfigError: one is not known.
    """
    for target in targets(node):
        if is_known(target):
            continue
        if not trust:
            raise ConfigError(f"_target_={target} is refused: {how_to_trust(target) or _ONLY_OURS}")
        print(f"vitexp: trust=true: {target} is not vitexp's, and is called all the same", file=sys.stderr)


def whitelist(node: Any) -> list[str]:
    """The names that Hydra 1.4 may call for a node that `require_known` let through, and the classes of the results."""
    named = dict.fromkeys(targets(node))
    beside = dict.fromkeys(f"{target.rpartition('.')[0]}.*" for target in named if "." in target)
    return [*named, *beside, *(f"vitexp.{package}.*" for package in PACKAGES)]


def is_known(target: str) -> bool:
    """Whether a target may be called: it is on the list, a class (or regime, or schedule) where vitexp defines it, or
    trusted by the user.

    Raises:
        ConfigError: it is trusted and cannot be imported.
    """
    return target in TARGETS or _is_own(target) or is_trusted(target)


def _is_own(target: str) -> bool:
    module, _, name = target.rpartition(".")
    parts = module.split(".")
    if len(parts) < 3 or parts[0] != "vitexp" or parts[1] not in PACKAGES or not _is_module(parts):
        return False
    found = getattr(import_module(module), name, None)
    if getattr(found, "__module__", None) != module:
        return False
    return inspect.isclass(found) or (inspect.isfunction(found) and parts[1] in WITH_FUNCTIONS)


def targets(node: Any) -> list[str]:
    """All `_target_` values in a container."""
    if isinstance(node, dict):
        own = [str(node["_target_"])] if "_target_" in node else []
        return own + [target for value in node.values() for target in targets(value)]
    if isinstance(node, list):
        return [target for value in node for target in targets(value)]
    return []


def _is_module(parts: list[str]) -> bool:
    """Whether each step of a dotted name is a module of vitexp; only packages known to be there are imported."""
    for end in range(2, len(parts) + 1):
        try:
            if find_spec(".".join(parts[:end])) is None:
                return False
        except (ModuleNotFoundError, ValueError, AttributeError):
            return False
    return True
