"""The search space of a study: Hydra's sweep syntax as Optuna's distributions.

`a,b,c` and `choice(...)` are unordered values, `range(start, stop, step)` an evenly spaced row without its stop,
`interval(low, high)` everything between; `tag(log, interval(...))` draws evenly in the logarithm. An interval over a
key that ships with a whole number draws whole numbers.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.override_parser.types import Sweep as SweepSyntax
from omegaconf import DictConfig, OmegaConf

from vitexp.errors import ConfigError
from vitexp.sweep.plan import Planned, Words, digest, hash_of, plan, values_of

SAMPLERS, PRUNERS, DIRECTIONS = ("tpe", "random", "grid"), ("median", "halving", "none"), ("maximize", "minimize")


class Space:
    """The fixed words and a distribution for each swept key; `cfg` is `settings_of` the words."""

    def __init__(self, words: Words, cfg: DictConfig, config_dirs: Sequence[str]) -> None:
        """Check that the ends of every range compose.

        Raises:
            ConfigError: a value or setting is not possible.
        """
        self.cfg = cfg
        self.settings = cfg.sweeper
        self._words = words
        self._config_dirs = config_dirs
        for key, allowed in (("sampler", SAMPLERS), ("pruner", PRUNERS), ("direction", DIRECTIONS)):
            if self.settings[key] not in allowed:
                raise ConfigError(f"sweeper.{key}={self.settings[key]} is not known; use {', '.join(allowed)}")
        if self.settings.reduction < 2:
            raise ConfigError(f"sweeper.reduction={self.settings.reduction} keeps every job; use 2 or more")
        self.distributions = {override.key_or_group: self._distribution(override) for override in words.swept}
        self._check()

    def identity(self, verb: str) -> str:
        """Equal for the same study: base configuration, searched values and settings; not how many trials."""
        settings: Any = OmegaConf.to_container(self.settings)
        settings.pop("trials")
        searched = {key: repr(distribution) for key, distribution in self.distributions.items()}
        return hash_of([verb, "optuna", digest(self.cfg), settings, searched])

    def planned(self, params: Mapping[str, Any]) -> Planned:
        """The job with these values."""
        return plan(self._words.fixed, {key: str(params[key]) for key in self.distributions}, self._config_dirs)

    def combinations(self) -> list[dict[str, Any]]:
        """Every combination, in the order of the words.

        Raises:
            ConfigError: a key has no end of values.
        """
        listed = [[(key, value) for value in self._listed(key)] for key in self.distributions]
        return [dict(combination) for combination in itertools.product(*listed)]

    def _listed(self, key: str) -> list[Any]:
        from optuna.distributions import CategoricalDistribution

        distribution: Any = self.distributions[key]
        if isinstance(distribution, CategoricalDistribution):
            return list(distribution.choices)
        if distribution.step is None or distribution.log:
            raise ConfigError(f"sweeper.sampler=grid cannot list {key}, an interval; use range(...) or sampler=tpe")
        count = round((distribution.high - distribution.low) / distribution.step) + 1
        return [distribution.low + index * distribution.step for index in range(count)]

    def _distribution(self, override: Override) -> Any:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        value: Any = override.value()
        log = isinstance(value, SweepSyntax) and "log" in value.tags
        try:
            if isinstance(value, IntervalSweep):
                assert value.start is not None
                assert value.end is not None
                whole = isinstance(OmegaConf.select(self.cfg, override.key_or_group), int)
                if whole or isinstance(value.start, int):
                    return IntDistribution(int(value.start), int(value.end), log=log)
                return FloatDistribution(value.start, value.end, log=log)
            if isinstance(value, RangeSweep) and not log:
                row = list(value.range())
                kind = IntDistribution if all(isinstance(item, int) for item in row) else FloatDistribution
                step = type(value.step)(abs(value.step))
                return kind(min(row), max(row), step=step)  # type: ignore[arg-type]
            return CategoricalDistribution(values_of(override, self._config_dirs))
        except ValueError as error:
            raise ConfigError(f"'{override.input_line}' is no range to search: {error}; give low before high") from None

    def _check(self) -> None:
        """Compose the first value of every key, then each listed value and each end of a range beside them."""
        from optuna.distributions import CategoricalDistribution

        ends: dict[str, list[Any]] = {}
        for key, distribution in self.distributions.items():
            listed = isinstance(distribution, CategoricalDistribution)
            ends[key] = list(distribution.choices) if listed else [distribution.low, distribution.high]
        first = {key: values[0] for key, values in ends.items()}
        self.planned(first)
        for key, values in ends.items():
            for value in values[1:]:
                self.planned({**first, key: value})
