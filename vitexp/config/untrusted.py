"""Limits on a stranger's configuration: no secrets, no environment, no code of Hydra's, no swelling.

`vitexp.config.targets` looks at what it names to be called. Nothing here imports torch.
"""

import os
import re
from collections.abc import Iterator
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml.events import AliasEvent

from vitexp.config.targets import follow_moves
from vitexp.errors import CheckpointError, ConfigError, VitexpError, first_line

HYDRA_CODE = ("hydra.callbacks", "hydra.searchpath", "hydra.job_logging", "hydra.hydra_logging", "hydra/callbacks")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # five times as fast
_READ_VARIABLES = ("WANDB_PROJECT",)
_RULES_BYTES = 1 << 20  # of a saved configuration; ours have some ten thousand
_VALUES, _EXPRESSION = 20_000, 500  # of ours, the largest has some 400 values, an expression 100 characters
_RESOLVERS = "oc.select|oc.env|published|repeat|share|patch_size|size_step|stem_stride|tokens".replace(".", r"\.")
# A name, perhaps with another reference as its last part, or one of our resolvers.
_OPENING = re.compile(rf"\$\{{(?:\w[\w.]*(?:\}}|(?<=\.)(?=\$\{{[\w.]+\}}\}}))|(?:{_RESOLVERS}):)")
_REFERENCE = re.compile(r"\$\{(\w[\w.]*?)\.?(?=\}|\$)|oc\.select:([\w.]+)")
_TIMES = 4096
_BRACKETS, _DEPTH = 10_000, 50  # PyYAML takes seconds for lists in lists in lists
_SECRET = re.compile(r"api_?key|secret|passw(or)?d|credential|(access|auth|private)_(key|token)", re.IGNORECASE)


def parse_rules(text: str, source: str) -> DictConfig:
    """The saved configuration in a text, a stranger's perhaps: bounded, and never trusting by its own word.

    Raises:
        CheckpointError: it is not one that vitexp writes.
    """
    try:
        nested = text.count("[") + text.count("{") + _BRACKETS * text.count("  " * _DEPTH)
        if len(text) > _RULES_BYTES or nested > _BRACKETS or _has_aliases(text):
            raise CheckpointError(f"{source} is too large or repeats parts of itself, so vitexp did not write it")
        cfg = OmegaConf.create(follow_moves(text))
        content = OmegaConf.to_container(cfg, resolve=False)
    except (ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{source} cannot be read ({first_line(error)}); copy the run again") from error
    if not isinstance(cfg, DictConfig) or not content:
        raise CheckpointError(f"{source} is not a configuration")
    _Size(content, source).require_bounded()
    require_no_secrets(cfg, CheckpointError)
    resolve(cfg, CheckpointError)
    cfg.trust = False
    return cfg


def _has_aliases(text: str) -> bool:
    return any(isinstance(event, AliasEvent) for event in yaml.parse(text, Loader=_LOADER))


class _Size:
    """The number of values that a stored configuration has once its references are followed, found without doing so.

    A text with references counts as all that they lead to, so what doubles at each step is seen before it grows.
    """

    def __init__(self, content: object, source: str) -> None:
        self._content, self._source = content, source
        self._known: dict[str, int] = {}

    def require_bounded(self) -> None:
        """Raise CheckpointError for more than 20,000 values, a reference to itself, or one that ours are not like."""
        if self._of(self._content) > _VALUES:
            raise self._refusal(f"grows to more than {_VALUES:,} values")

    def _of(self, node: object) -> int:
        if isinstance(node, dict):
            return 1 + sum(self._of(value) for value in node.values())
        if isinstance(node, list):
            return 1 + sum(map(self._of, node))
        if isinstance(node, str) and "${" in node:
            return self._expression(node)
        return 1

    def _expression(self, text: str) -> int:
        if len(text) > _EXPRESSION or _OPENING.sub("", text).count("${"):
            raise self._refusal(f"has the reference {text[:80]!r}")
        names = [first or second for first, second in _REFERENCE.findall(text)]
        return 1 + sum(map(self._named, names))

    def _named(self, name: str) -> int:
        if name not in self._known:
            self._known[name] = _VALUES + 1  # a reference to itself has no end
            self._known[name] = self._of(self._at(name))
        return self._known[name]

    def _at(self, name: str) -> object:
        node: object = self._content
        for key in name.split("."):
            if not isinstance(node, dict) or key not in node:
                return None  # OmegaConf says so, or takes the default of `oc.select`
            node = node[key]
        return node

    def _refusal(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self._source} {why}, so vitexp did not write it; copy the run again")


def require_plain_hydra(hydra: DictConfig) -> None:
    """Hydra's own ways to run code from a configuration file are closed: callbacks, and classes of logging."""
    logs = OmegaConf.to_container(OmegaConf.create([hydra.job_logging, hydra.hydra_logging]), resolve=False)
    classes = set(re.findall(r"'(?:class|\(\))': '([^']*)'", str(logs)))
    if hydra.callbacks or not classes <= {"logging.StreamHandler", "logging.FileHandler", "logging.Formatter"}:
        raise ConfigError(
            "hydra.callbacks and classes of hydra's logging are refused: they run code that a file names; take them out"
        )


def require_no_secrets(cfg: DictConfig, refusal: type[VitexpError]) -> None:
    """A configuration is written to files, so nothing secret may enter it."""
    for name in _names(cfg):
        if _SECRET.search(name.rpartition(".")[2]):
            raise refusal(
                f"{name} looks like a secret, and a configuration is written to files; leave it in the environment"
                " variable or the file that its library reads"
            )


def repeat(value: object, times: int) -> list[object]:
    """`${repeat:...}`: a list of `times` equal values. Raises ConfigError for more than 4,096."""
    if not isinstance(times, int) or not 0 <= times <= _TIMES:
        raise ConfigError(f"${{repeat:{value},{times}}} is refused; repeat a value 0 to {_TIMES} times")
    return [value] * times


def from_environment(name: str, default: str | None = None) -> str | None:
    """`${oc.env:...}`: the environment holds secrets, and what is resolved is written to files."""
    if name not in _READ_VARIABLES:
        raise ConfigError(
            f"${{oc.env:{name}}} is refused: a configuration is written to files, and the environment holds secrets;"
            " give the value itself, and keys of services in the variable that their library reads"
        )
    return os.environ.get(name, default)


def resolve(cfg: DictConfig, refusal: type[VitexpError]) -> None:
    """Raise `refusal` where a value of the configuration cannot be worked out."""
    try:
        OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise refusal(str(error.__cause__ or first_line(error))) from error


def _names(node: Any, prefix: str = "") -> Iterator[str]:
    for key in map(str, node) if isinstance(node, DictConfig) else ():
        yield f"{prefix}{key}"
        yield from _names(node._get_node(key), f"{prefix}{key}.")
