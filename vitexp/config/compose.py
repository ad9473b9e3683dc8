"""The configuration of a run: where the files are, how they compose, and what is caught before anything runs.

Nothing here imports torch: help, `--cfg`, spelling and type errors answer at once. Groups are folders of `conf/`,
options are their files, and the shipped value of a key is its type.
"""

import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from vitexp.config.command import VERBS
from vitexp.config.extensions import find_code, folders, settings_file
from vitexp.config.peers import key_here, option_here
from vitexp.config.releases import VERSION_BASE, register_resolver
from vitexp.config.schema import (
    ALIASES,
    AUTO_BATCH,
    GROUPS,
    RunConfig,
)
from vitexp.config.small_image import patch_size, published, size_step, stem_stride, tokens
from vitexp.config.spelling import nearest, one_of
from vitexp.config.untrusted import (
    HYDRA_CODE,
    from_environment,
    repeat,
    require_plain_hydra,
)
from vitexp.config.values import check_type, check_values, example_of, kind_of, spelt
from vitexp.errors import ConfigError, first_line


def conf_dir() -> Path:
    """The folder of shipped configuration: inside the installed package, or beside it in a checkout."""
    here = Path(__file__).resolve().parents[1]
    for candidate in (here / "conf", here.parent / "conf"):
        if (candidate / "config.yaml").is_file():
            return candidate
    raise ConfigError(f"no conf/ beside {here}: the installation is incomplete; reinstall vitexp")


def register() -> None:
    """Make the schema and the resolvers known to Hydra; calling it again changes nothing."""
    store = ConfigStore.instance()
    if "schema.yaml" not in store.repo:
        store.store(name="schema", node=RunConfig)
    register_resolver("oc.env", from_environment)
    register_resolver("patch_size", patch_size)
    register_resolver("published", published)
    register_resolver("stem_stride", stem_stride)
    register_resolver("size_step", size_step)
    register_resolver("tokens", tokens)
    register_resolver("repeat", repeat)
    register_resolver("share", lambda share, whole: int(share * whole))


def options(group: str, config_dirs: Sequence[str | Path] = ()) -> list[str]:
    """Names that may stand behind `group=`: its files, in conf/ and in the user's own folders."""
    return sorted({path.stem for root in roots(config_dirs) for path in (root / group).glob("*.yaml")})


def roots(config_dirs: Sequence[str | Path] = ()) -> list[Path]:
    """The folders of options: conf/, those of --config-dir and those of installed packages."""
    return list(dict.fromkeys([conf_dir(), *folders(config_dirs)]))


def option_file(group: str, option: str, config_dirs: Sequence[str | Path] = ()) -> Path:
    """The file of an option.

    Raises:
        ConfigError: none, or more than one.
    """
    files = [file for root in roots(config_dirs) if (file := root / group / f"{option}.yaml").is_file()]
    if not files:
        allowed = options(group, config_dirs)
        files = [file for root in roots(config_dirs) for file in (root / group).glob("*.yaml")]
        hint = nearest(option, allowed) or option_here(group, option, files)
        raise ConfigError(f"{group}={option} is not known{hint}; use {one_of(allowed)}")
    if len(files) > 1:
        raise ConfigError(f"{group}={option} is {files[0]} and {files[1]}; rename the second, as only the first counts")
    return files[0]


def compose(overrides: Sequence[str] = (), *, config_dirs: Sequence[str | Path] = ()) -> DictConfig:
    """The configuration for `overrides`, checked; what the command line composes, for notebooks and tests.

    Args:
        overrides: as typed, `["model=vit_ti16", "lr=3e-4"]`; short names are understood.
        config_dirs: folders of your own options, searched besides the shipped ones.

    Raises:
        ConfigError: unknown key or option (with the nearest spellings), wrong type, value out of range.
    """
    register()
    extra = folders(config_dirs)
    parsed = [parse(text) for text in overrides]
    for override in parsed:
        _check_syntax(override, extra)
    search = searching(extra)
    valued = [o for o in parsed if not o.key_or_group.startswith("hydra") and not _is_choice(o)]
    choices = search + [o.input_line or "" for o in parsed if o not in valued]
    cfg = _choose(choices, extra)
    _require_groups(cfg)
    _require_attention(cfg, choices, extra)
    _require_own_trust(cfg)
    _check_keys(valued, cfg)
    for override in valued:
        check_type(override, cfg)
    _set(cfg, valued)
    _place_backbone(cfg, search, extra)
    check_values(cfg)
    if config_dirs:
        find_code(extra, trust=cfg.trust)
    return cfg


def _require_groups(cfg: DictConfig) -> None:
    """Raise ConfigError if a file of options puts a single value where a group of keys belongs."""
    for group in ("model", "data", "task", "regime", "optimizer", "schedule", "augment", "trainer", "logger"):
        if not isinstance(OmegaConf.select(cfg, group), DictConfig):
            raise ConfigError(
                f"{group} is no group of keys in the file of {group}={cfg.chosen.get(group)}; mend the file"
            )


def searching(extra: Sequence[Path]) -> list[str]:
    """The override that lets Hydra look into further folders; none for none."""
    return [f"hydra.searchpath=[{','.join(_quote('file://' + str(folder)) for folder in extra)}]"] if extra else []


def _require_own_trust(cfg: DictConfig) -> None:
    """Raise ConfigError if a file trusts itself; before the overrides, which the user has typed, are applied."""
    if OmegaConf.to_container(cfg, resolve=False)["trust"] is not False:  # type: ignore[index,call-overload]
        raise ConfigError(
            "trust: in a file of options is refused, as a file could so trust itself; take it out, and name what you"
            f" trust in {settings_file()}, or type trust=true for one command"
        )


def _require_attention(cfg: DictConfig, choices: Sequence[str], extra: Sequence[Path]) -> None:
    """Raise ConfigError if an attention was typed for a model whose file has none (`override /attention: null`)."""
    others = [choice for choice in choices if not choice.startswith("attention=")]
    if len(others) < len(choices) and "attention" not in _choose(others, extra).model:
        raise ConfigError(
            f"model={cfg.chosen.model} has no attention to choose, and attention={cfg.chosen.attention} was given;"
            " leave it out, or use a model such as model=vit_ti16"
        )


def _place_backbone(cfg: DictConfig, search: list[str], extra: Sequence[Path]) -> None:
    """Put the model that `model.backbone` names in place of its name, with the attention that it brings."""
    name: Any = OmegaConf.to_container(cfg.model, resolve=False).get("backbone")  # type: ignore[union-attr]
    if not isinstance(name, str) or "${" in name:
        return
    option_file("model", name, extra)
    node: Any = OmegaConf.to_container(_choose([*search, f"model={name}"], extra).model, resolve=False)
    if "backbone" in node:
        raise ConfigError(f"backbone={name} is a detector itself; use a classification model such as backbone=vit_ti16")
    text = re.sub(r"(\$\{|oc\.select:)model\.", r"\1model.backbone.", OmegaConf.to_yaml(OmegaConf.create(node)))
    cfg.model.backbone = OmegaConf.create(text)


def parse(text: str) -> Override:
    """One override, its short name spelt out; a value that Hydra's grammar cannot read is taken literally."""
    text = canonical(text)
    parser = OverridesParser.create()
    try:
        return parser.parse_override(text)
    except HydraException:
        key, equals, value = text.partition("=")
        if text in VERBS:
            raise ConfigError(f"'{text}' is a verb and stands first, once: vitexp {text} [group=option ...]") from None
        if not equals:
            raise ConfigError(
                f"'{text}' is neither a verb nor key=value; `vitexp --help` lists both"
                + nearest(text, [*GROUPS, *VERBS])
            ) from None
    try:
        return parser.parse_override(f"{key}={_quote(value)}")
    except HydraException:
        raise ConfigError(f"cannot read '{text}': write key=value, as in lr=1e-3 or model=vit_ti16") from None


def canonical(text: str) -> str:
    """The override with its short name (`lr=`) replaced by the key it stands for (`optimizer.lr=`)."""
    key, equals, value = text.partition("=")
    spelt = f"{ALIASES.get(key, key)}{equals}{value}"
    return AUTO_BATCH.get(spelt, spelt)


def flatten(cfg: Any, prefix: str = "") -> Iterable[str]:
    """Dotted names of all keys, branches included."""
    if isinstance(cfg, DictConfig):
        for key in map(str, cfg):
            name = f"{prefix}{key}"
            yield name
            node = cfg._get_node(key)
            if isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation():
                yield from flatten(node, f"{name}.")


def to_yaml(cfg: DictConfig) -> str:
    """The configuration as YAML; a computed value carries its rule and, as a comment, the value it has now."""
    lines: list[str] = []
    _write_yaml(cfg, cfg, lines, 0)
    return "\n".join(lines) + "\n"


def _write_yaml(cfg: DictConfig, node: DictConfig, lines: list[str], depth: int) -> None:
    raw: Any = OmegaConf.to_container(node, resolve=False)
    for key in map(str, node):
        value, child, margin = raw[key], node._get_node(key), "  " * depth
        if isinstance(value, dict) and value:
            lines.append(f"{margin}{key}:")
            _write_yaml(cfg, child, lines, depth + 1)  # type: ignore[arg-type]
            continue
        text = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")
        if isinstance(value, str) and "${" in value:
            resolved = node[key]
            if isinstance(resolved, DictConfig | ListConfig):
                resolved = OmegaConf.to_container(resolved, resolve=True)
            shown = yaml.safe_dump(resolved, default_flow_style=True, width=10_000)
            text += f"  # = {shown.removesuffix(chr(10)).removesuffix(chr(10) + '...')}"
        lines.append(f"{margin}{key}: {text}")


@contextmanager
def _no_other_hydra() -> Iterator[None]:
    """Step aside for a Hydra that runs already: a sweep's jobs compose too, and so may a user's own application."""
    running, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = running


def _choose(choices: Sequence[str], extra: Sequence[Path]) -> DictConfig:
    """The composition by Hydra for the choices of options, without the values: most of the time of composing."""
    files = [path.stat() for root in (conf_dir(), *extra) for path in root.glob("**/*.yaml")]
    return copy.deepcopy(
        _compose(tuple(choices), tuple((file.st_ino, file.st_mtime_ns, file.st_size) for file in files))
    )


@lru_cache(maxsize=64)
def _compose(overrides: tuple[str, ...], files: tuple[tuple[int, ...], ...]) -> DictConfig:
    """The composition, kept while the `files` stay: notebooks, sweeps and reports compose the same again."""
    with _no_other_hydra(), initialize_config_dir(str(conf_dir()), **VERSION_BASE):
        try:
            cfg = hydra_compose("config", overrides=list(overrides), return_hydra_config=True)
        except (ConfigCompositionException, HydraException, OmegaConfBaseException) as error:
            raise ConfigError(first_line(error)) from error
    choices = {key: value for key, value in cfg.hydra.runtime.choices.items() if not key.startswith("hydra/")}
    require_plain_hydra(cfg.hydra)
    with open_dict(cfg):
        del cfg["hydra"]
        cfg.chosen = choices
    return cfg


def _set(cfg: DictConfig, valued: Sequence[Override]) -> None:
    for override in valued:
        try:
            OmegaConf.update(cfg, override.key_or_group, override.value(), merge=True)
        except OmegaConfBaseException as error:
            before = OmegaConf.select(cfg, override.key_or_group)
            raise ConfigError(
                f"{override.input_line} is not possible ({first_line(error)}); {override.key_or_group} takes "
                f"{kind_of(before)}, as in {override.key_or_group}={example_of(before)}"
            ) from error


def _check_keys(valued: list[Override], shipped: DictConfig) -> None:
    known = set(flatten(shipped))
    for override in valued:
        key = override.key_or_group
        if key not in known:
            names, here = [*known, *ALIASES, *GROUPS], key_here(key)
            hint = nearest(key, names) if here is None else f"; type {here}={spelt(override.value())}"
            raise ConfigError(f"unknown key '{key}'{hint}; `vitexp --cfg job` shows all keys")


def _check_syntax(override: Override, extra: Sequence[Path]) -> None:
    key, text = override.key_or_group, override.input_line
    if key.startswith(HYDRA_CODE):
        raise ConfigError(
            f"'{text}' is refused: it makes Hydra find or run code; give your own options with --config-dir"
        )
    if override.is_add() or override.is_force_add() or override.is_delete():
        raise ConfigError(f"'{text}' would change which keys exist; every key has a shipped value: write {key}=VALUE")
    if override.is_sweep_override():
        raise ConfigError(f"'{text}' lists several values; add -m to run one job for each")
    if _is_group(key) and not (key == "experiment" and override.value() is None):
        option_file(key, spelt(override.value()), extra)


def is_sweep(override: Override) -> bool:
    """Whether the override lists several values."""
    return override.is_sweep_override()


def sweep_values(override: Override) -> list[str]:
    """The values of a `key=a,b,c` sweep as overrides of their own; other kinds of sweep are left to Hydra."""
    value = override.value()
    if not isinstance(value, ChoiceSweep):
        return []
    return [f"{override.key_or_group}={_quote(spelt(item)) if _odd(item) else spelt(item)}" for item in value.list]


def _odd(item: Any) -> bool:
    return isinstance(item, QuotedString)


def _is_group(key: str) -> bool:
    return key in GROUPS


def _is_choice(override: Override) -> bool:
    return _is_group(override.key_or_group) or override.key_or_group.startswith("hydra/")


def _quote(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'") if "'" in value else value
    return f"'{escaped}'"
