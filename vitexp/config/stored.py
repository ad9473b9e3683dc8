"""A configuration that a file has kept, of a run or an adapter: it must look like those that vitexp composes."""

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vitexp.config.compose import compose, options, register
from vitexp.config.schema import GROUPS
from vitexp.config.untrusted import parse_rules
from vitexp.config.values import check_values, is_like, kind_of
from vitexp.errors import CheckpointError, ConfigError

_OPTION = re.compile(r"[\w.+-]{1,100}")
_GROUPS = ("model", "data", "task", "regime", "optimizer", "schedule", "trainer", "chosen")
_KEYS = ("seed", "epochs", "select", "precision")
_LARGEST = 2**53  # of a whole number: beyond it JSON and floats are not exact


def stored(text: str, source: str) -> DictConfig:
    """The configuration in a text, its references alive, with what every configuration has in the types that it has.

    Raises:
        CheckpointError: it is not one that vitexp writes; names the key and what stands there.
    """
    register()
    cfg = parse_rules(text, source)
    fresh = _composed(cfg, source)
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    expected: Any = OmegaConf.to_container(fresh, resolve=True)
    missing = [key for key in _GROUPS if not isinstance(plain.get(key), dict)] + [
        key for key in _KEYS if key not in plain
    ]
    if missing:
        raise CheckpointError(f"{source} has no {missing[0]}, or another thing there; copy the run again")
    _require_alike(plain, expected, "", source)
    try:
        check_values(cfg)
    except ConfigError as error:
        raise CheckpointError(f"{source}: {error}") from error
    return cfg


def _composed(cfg: DictConfig, source: str) -> DictConfig:
    """The options that the configuration chose as they are shipped; those of a user's own folder are not known here."""
    chosen = cfg.get("chosen")
    if not isinstance(chosen, DictConfig):
        raise CheckpointError(f"{source} does not say which options were chosen; copy the run again")
    for group, option in chosen.items():
        if not (option is None or (isinstance(option, str) and _OPTION.fullmatch(option))):
            raise CheckpointError(f"{source}: chosen.{group!s}={option!r} is no option's name; copy the run again")
    known = [f"{group}={option}" for group, option in chosen.items() if group in GROUPS and option in options(group)]
    try:
        return compose(known)
    except ConfigError as error:
        raise CheckpointError(f"{source} chose what does not go together: {error}") from error


def _require_alike(found: Mapping[str, object], shipped: Mapping[str, object], prefix: str, source: str) -> None:
    """Raise CheckpointError for the first value of another kind than the shipped one."""
    for key, value in found.items():
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise CheckpointError(
                f"{source}: {prefix}{key} is a number of {len(str(value))} digits; copy the run again"
            )
        before = shipped.get(key)
        if before is None or key not in shipped:
            continue
        if isinstance(before, dict) and isinstance(value, dict):
            _require_alike(value, before, f"{prefix}{key}.", source)
        elif not is_like(before, value):
            raise CheckpointError(
                f"{source}: {prefix}{key}={str(value)[:80]} is {kind_of(value)}, and {kind_of(before)} is expected;"
                " copy the run again"
            )
