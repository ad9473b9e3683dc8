"""The three calls that Hydra 1.4 with OmegaConf 2.4 spells differently from Hydra 1.3 with OmegaConf 2.3."""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import hydra.utils
import omegaconf

_SINCE_1_4 = tuple(map(int, hydra.__version__.split(".")[:2])) >= (1, 4)
# Of `hydra.main` and its like: 1.3 asks for a release whose rules hold, 1.4 has one set of rules.
VERSION_BASE: dict[str, Any] = {} if _SINCE_1_4 else {"version_base": "1.3"}


def register_resolver(name: str, resolver: Callable[..., Any]) -> None:
    """Give `${name:...}` of a configuration its meaning; the last one given counts."""
    register: Any = omegaconf.OmegaConf
    if _SINCE_1_4:
        register.register_resolver(name, resolver, replace=True)
    else:
        register.register_new_resolver(name, resolver, replace=True)


def allowing(names: Collection[str]) -> AbstractContextManager[Any]:
    """The names that `instantiate` may call inside this context; Hydra 1.3 keeps no such list and calls them all."""
    utils: Any = hydra.utils
    return utils.execution_whitelist(list(names), reset=True) if _SINCE_1_4 else nullcontext()
