"""The values that a key may have: the type of its shipped value, its range or choices; each mistake is named."""

import os
from collections.abc import Callable
from typing import Any

from hydra.core.override_parser.types import Override, QuotedString
from omegaconf import DictConfig, ListConfig, OmegaConf

from vitexp.config.schema import (
    ALIASES,
    AUTO_BATCH,
    BELOW_ONE,
    CHOICES,
    COUNTS,
    FORKED,
    NOT_NEGATIVE,
    POSITIVE,
    SHARES,
    STRATEGIES,
)
from vitexp.config.spelling import nearest, one_of
from vitexp.config.targets import TARGETS
from vitexp.config.untrusted import require_no_secrets, resolve
from vitexp.errors import ConfigError

_RANGES: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (POSITIVE, lambda value: value > 0, "above 0"),
    (NOT_NEGATIVE, lambda value: value >= 0, "0 or more"),
    (SHARES, lambda value: 0 <= value <= 1, "from 0 to 1"),
    (BELOW_ONE, lambda value: 0 <= value < 1, "from 0 to below 1"),
    (("model.depth",), lambda value: 1 <= value <= 4096, "from 1 to 4,096"),
    (COUNTS, lambda value: 1 <= value <= 1_000_000, "from 1 to 1,000,000"),
)


def check_values(cfg: DictConfig) -> None:
    """Ranges and closed choices, each a ConfigError that names what is allowed."""
    require_no_secrets(cfg, ConfigError)
    resolve(cfg, ConfigError)  # before a value is looked at
    for key, allowed in CHOICES.items():
        if _is_foreign(cfg, key):
            continue
        value = OmegaConf.select(cfg, key, default=allowed[0])
        if value not in allowed:
            names = [spelt(name) for name in allowed]
            raise ConfigError(f"{key}={value} is not known; use {one_of(names)}{nearest(spelt(value), names)}")
    for keys, fits, bound in _RANGES:
        for key in keys:
            if _is_foreign(cfg, key):
                continue
            _check_number(key, OmegaConf.select(cfg, key), fits, bound)
    for key in ("data.root", "outputs"):
        _check_path(key, str(OmegaConf.select(cfg, key)))
    _check_strategy(str(OmegaConf.select(cfg, "trainer.strategy")))


def _is_foreign(cfg: DictConfig, key: str) -> bool:
    """Whether a key belongs to a class that is not vitexp's, which has its own meaning of it; sizes and rates have one.

    The class is the group's own, or that of its part which is built: `data.module`, `analysis.measure`.
    """
    group, dot, _ = key.partition(".")
    if not dot or key in ALIASES.values() or not isinstance(cfg.get(group), DictConfig):
        return False
    nodes = [cfg[group], *(cfg[group].get(part) for part in ("module", "measure"))]
    named = [str(node["_target_"]) for node in nodes if isinstance(node, DictConfig) and "_target_" in node]
    return any(not name.startswith("vitexp.") and name not in TARGETS for name in named)


def _check_number(key: str, value: Any, fits: Callable[[float], bool], bound: str) -> None:
    """Raise ConfigError unless a value is null (or its key absent), to be found, or a number that fits."""
    if value is None or f"{key}={value}" in AUTO_BATCH.values():
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{key}={spelt(value)} is {kind_of(value)}; use a number {bound}")
    if not fits(value):
        raise ConfigError(f"{key}={value} is out of range; use a value {bound}")


def _check_path(key: str, path: str) -> None:
    if not path.isprintable():
        raise ConfigError(f"{key}={path[:200]} has a control character or is not UTF-8; rename the folder")
    if len(path) > 4000 or max(len(os.fsencode(part)) for part in path.split("/")) > 255:
        raise ConfigError(f"{key}={path[:60]}... is too long for a path, or one of its names is; use another folder")


def _check_strategy(strategy: str) -> None:
    if any(word in strategy for word in FORKED):
        raise ConfigError(
            f"trainer.strategy={strategy} starts processes that share no run folder and give no weights back; several "
            "devices need one command each, which ddp and fsdp start by themselves; use trainer.strategy=ddp"
        )
    if strategy not in STRATEGIES:
        raise ConfigError(
            f"trainer.strategy={strategy} is not known; use auto, ddp, fsdp or another name that Lightning has"
            + nearest(strategy, STRATEGIES)
        )


def check_type(override: Override, shipped: DictConfig) -> None:
    """A value keeps the type that the shipped file gives it: an int for a float will do; null, auto, ${} are free."""
    key, after = override.key_or_group, override.value()
    if after is None or "${" in spelt(after):
        return
    before = OmegaConf.select(shipped, key)
    if f"{key}={spelt(after)}" in AUTO_BATCH.values():
        return
    number_as_text = isinstance(before, str) and "." not in key and isinstance(after, int | float)
    if before in (None, "auto") or number_as_text or _same_kind(before, after):
        return
    given = f"{key}={spelt(after)} is {kind_of(after)}"
    found = " or auto" if f"{key}=auto" in AUTO_BATCH else ""
    raise ConfigError(f"{given}; {key} takes {kind_of(before)}{found}, as in {key}={example_of(before)}")


def is_like(before: object, after: object) -> bool:
    """Whether a stored value may stand where the shipped file has `before`; null, auto and numbers as text are free."""
    return after is None or before in (None, "auto") or isinstance(before, str) or _same_kind(before, after)


def _same_kind(before: Any, after: Any) -> bool:
    if isinstance(before, bool) or isinstance(after, bool):
        return isinstance(before, bool) and isinstance(after, bool)
    if isinstance(before, float):
        return isinstance(after, int | float)
    if isinstance(before, ListConfig | DictConfig | list | dict):
        return isinstance(after, list if isinstance(before, ListConfig | list) else dict)
    return isinstance(after, (str, QuotedString) if isinstance(before, str) else type(before))


def kind_of(value: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    if isinstance(value, ListConfig | list):
        return "a list"
    if isinstance(value, QuotedString):
        return "text"
    return names.get(type(value), "a group of keys")


def example_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, ListConfig):
        return str(OmegaConf.to_container(value, resolve=True)).replace(" ", "")
    return "..." if isinstance(value, DictConfig) else str(value)


def spelt(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, QuotedString):
        return str(value.text)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
