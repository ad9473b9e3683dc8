"""The plan of a sweep: the words of the command become jobs, each with its whole configuration.

Hydra's grammar of sweeps (lists, `range`, `glob`), expanded here: every job is composed and checked before the first
starts. Two jobs are the same if their configurations are, however they were written, and so are two sweeps.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Glob, Override
from omegaconf import DictConfig, OmegaConf

from vitexp.config.compose import compose, is_sweep, options, parse
from vitexp.config.schema import GROUPS, SWEEP_KEYS
from vitexp.errors import CheckpointError, ConfigError
from vitexp.run.folder import find

# A sweep is put back into SLURM's queue as a whole.
_OWN = (*SWEEP_KEYS, "requeue")
# Where results go and how they are shown is no part of what a job is.
_NOT_IDENTITY = ("outputs", "quiet", "sweeper", *_OWN)


@dataclass(frozen=True)
class Words:
    """The words of a sweep's command by their purpose.

    `fixed` hold for every job, `swept` list values, `how` are about the sweep itself (slots=, sweeper=, ...), `hydra`
    are for the launcher.
    """

    fixed: tuple[str, ...]
    swept: tuple[Override, ...]
    how: tuple[str, ...]
    hydra: tuple[str, ...]


@dataclass(frozen=True)
class Planned:
    """One job: its overrides in canonical form, those that differ between jobs, its whole configuration."""

    overrides: tuple[str, ...]
    swept: dict[str, str]
    cfg: DictConfig

    @property
    def digest(self) -> str:
        """Equal for equal configurations."""
        return digest(self.cfg)


def sort_words(words: Iterable[str]) -> Words:
    """Tell the words of a sweep apart.

    Raises:
        ConfigError: no word lists values, or one of the sweep's own does.
    """
    fixed, swept, how, hydra = list[str](), list[Override](), list[str](), list[str]()
    for override in map(parse, words):
        text, key = override.input_line or "", override.key_or_group
        if key.startswith("hydra"):
            hydra.append(text)
        elif key in _OWN or key.partition(".")[0] == "sweeper":
            if is_sweep(override):
                raise ConfigError(f"'{text}' is about the whole sweep, so it takes one value; give one")
            how.append(text)
        elif is_sweep(override):
            swept.append(override)
        else:
            fixed.append(text)
    if not swept:
        raise ConfigError("-m needs a key with several values, as in lr=1e-3,3e-4 or seed=0,1,2")
    return Words(tuple(fixed), tuple(swept), tuple(how), tuple(hydra))


def settings_of(words: Words, config_dirs: Sequence[str]) -> DictConfig:
    """The composition of the words with the first value of each list: some keys exist only beside a swept group.

    Raises:
        ConfigError: a mistake in any of them.
    """
    listed = [override for override in words.swept if override.is_discrete_sweep()]
    first = [f"{override.key_or_group}={values_of(override, config_dirs)[0]}" for override in listed]
    return compose([*words.fixed, *first, *words.how], config_dirs=config_dirs)


def grid(words: Words, config_dirs: Sequence[str]) -> list[Planned]:
    """A job for each combination of the listed values, in the order of the words, the last changing fastest.

    Raises:
        ConfigError: a mistake in any of the combinations.
    """
    listed = [[(o.key_or_group, value) for value in values_of(o, config_dirs)] for o in words.swept]
    jobs: dict[str, Planned] = {}
    for combination in itertools.product(*listed):
        job = plan(words.fixed, dict(combination), config_dirs)
        jobs.setdefault(job.digest, job)
    return list(jobs.values())


def plan(fixed: Sequence[str], swept: dict[str, str], config_dirs: Sequence[str]) -> Planned:
    """The job with these values, composed and checked; a run named by `run=` is looked up now."""
    overrides = (*fixed, *(f"{key}={value}" for key, value in swept.items()))
    cfg = compose(overrides, config_dirs=config_dirs)
    if cfg.run is not None:
        with suppress(CheckpointError):  # of a run that is not there the verb says so, in the job
            cfg.run = str(find(cfg.run, Path(cfg.outputs)).path)
    return Planned(overrides, swept, cfg)


def values_of(override: Override, config_dirs: Sequence[str]) -> list[str]:
    """The values of a sweep over a list, a range or a glob, as overrides take them.

    Raises:
        ConfigError: it cannot be enumerated.
    """
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"'{override.input_line}' has no end of values; list them or use range(...), or add sweeper=optuna"
        )
    value: Any = override.value()
    if isinstance(value, Glob):
        if override.key_or_group not in GROUPS:
            raise ConfigError(f"'{override.input_line}': glob(...) names options of a group, such as model=glob(vit_*)")
        extra = [Path(folder).expanduser().resolve() for folder in config_dirs]
        return value.filter(options(override.key_or_group, extra))
    return list(override.sweep_string_iterator())


def digest(cfg: DictConfig) -> str:
    """A hash of what the configuration says of the job; where its results go is left out."""
    content: Any = OmegaConf.to_container(cfg, resolve=False)
    for key in _NOT_IDENTITY:
        content.pop(key, None)
    content["chosen"].pop("sweeper", None)
    return hash_of(content)


def hash_of(content: object) -> str:
    """16 hexadecimal digits that change with the content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def folder_name(swept: dict[str, str]) -> str:
    """Swept values as a folder name: last parts of the keys, no separators that a path or a shell minds."""
    text = ",".join(f"{key.rsplit('.', 1)[-1]}={_short(value)}" for key, value in sorted(swept.items()))
    return "".join(char if char.isalnum() or char in "=,._+-" else "_" for char in text)[:120] or "job"


def _short(value: str) -> str:
    """A drawn number with four digits; anything else as it is."""
    try:
        return f"{float(value):.4g}" if len(value) > 8 else value
    except ValueError:
        return value
