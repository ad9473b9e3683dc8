"""A run's configuration for another verb: what the run was, with the few changes that make sense there.

Model, task and crop come from the run. A change that the verb cannot honour is refused with both values, never
ignored.
"""

from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from vitexp.checkpoint.adapter import Adapter
from vitexp.config.compose import parse
from vitexp.config.schema import AUTO_BATCH
from vitexp.config.stored import stored
from vitexp.errors import CheckpointError, ConfigError
from vitexp.run.folder import Run

# What of the images belongs to the model that was trained on them, wherever it is tested.
_INPUT = (
    "image_size",
    "crop_pct",
    "interpolation",
    "channels",
    "mean",
    "std",
    "longest",
    "square",
    "sampler",
    "packing",
)
_ALWAYS = ("run", "outputs", "quiet", "trust")


def reopen(run: Run, overrides: Sequence[str], fresh: DictConfig, *, allowed: Sequence[str], verb: str) -> DictConfig:
    """The run's configuration with `overrides` applied.

    Args:
        run: the run.
        overrides: as typed, in canonical form.
        fresh: what the overrides compose to on their own; their values and types are checked already.
        allowed: keys, or prefixes that end in a dot, that the verb may change.
        verb: for the error message.

    Raises:
        ConfigError: a change that this verb does not allow.
    """
    cfg = run.config()
    cfg.trust = fresh.trust
    parsed = sorted((parse(text) for text in overrides), key=lambda override: override.key_or_group != "data")
    for override in parsed:
        key = override.key_or_group
        if not any(key == name or (name.endswith(".") and key.startswith(name)) for name in (*_ALWAYS, *allowed)):
            _refuse(run, cfg, fresh, key, allowed, verb)
        if key == "data":
            _replace_data(cfg, fresh)
        elif key in fresh.chosen:
            cfg.chosen[key] = fresh.chosen[key]
            cfg[key] = OmegaConf.create(OmegaConf.to_container(fresh[key], resolve=False))
        else:
            OmegaConf.update(cfg, key, OmegaConf.select(fresh, key), force_add=True)
    return cfg


def require_same(run: Run, overrides: Sequence[str], fresh: DictConfig, *, allowed: Sequence[str]) -> None:
    """Raise CheckpointError if an override outside `allowed` differs from what the run was started with."""
    # The number of micro-batches that `bs=auto` has found stays with the run.
    asked = [override for override in overrides if override not in AUTO_BATCH.values()]
    changes = [override.key_or_group for override in map(parse, asked)]
    changes = [key for key in changes if key not in allowed and key not in _ALWAYS]
    cfg = run.config() if changes else fresh
    for key in changes:
        before = cfg.chosen[key] if key in cfg.chosen else OmegaConf.select(cfg, key)
        after = fresh.chosen[key] if key in fresh.chosen else OmegaConf.select(fresh, key)
        if before != after:
            raise CheckpointError(
                f"{key} was {before} in run {run.name} and is {after} here; a resumed run stays what it was:"
                f" drop {key}=, or train a new run (a resume may change {', '.join(allowed)})"
            )


def _replace_data(cfg: DictConfig, fresh: DictConfig) -> None:
    kept = {key: cfg.data[key] for key in _INPUT if key in cfg.data}
    data = DictConfig(OmegaConf.to_container(fresh.data, resolve=False))
    for key, value in kept.items():
        data[key] = value
    cfg.data = data
    cfg.chosen.data = fresh.chosen.data


def _refuse(run: Run, cfg: DictConfig, fresh: DictConfig, key: str, allowed: Sequence[str], verb: str) -> None:
    now = cfg.chosen.get(key) if key in cfg.chosen else OmegaConf.select(cfg, key)
    names = ", ".join(name + "*" if name.endswith(".") else name for name in allowed)
    raise ConfigError(
        f"{verb} takes {key} from run {run.name} ({key}={now}); it may change only {names}; drop {key}="
        + (" or give checkpoint= instead of run=" if verb == "evaluate" else "")
    )


def rules_of(adapter: Adapter) -> DictConfig:
    """The configuration of the run that trained an adapter, perhaps a stranger's: not trusted by its own word."""
    return stored(str(adapter.about["rules"]), f"the configuration in {adapter.path}")
