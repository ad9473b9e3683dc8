"""`vitexp list models|data|attention|regimes|experiments|runs|adapters`: what there is, without importing torch.

Which attention goes into which model is read from the flags in the source of the attention classes. The models
themselves refuse what it refuses, which tests/model/test_compatibility.py holds them to; a family whose files are not
in conf/ has no column.
"""

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from vitexp.config.compose import conf_dir, option_file, options, roots
from vitexp.config.schema import GROUPS
from vitexp.errors import ConfigError
from vitexp.report.console import make_console
from vitexp.report.metrics import TEST_TOP1, headline
from vitexp.report.table import models_table, options_table, runs_table, value_table
from vitexp.report.text import clean
from vitexp.run.folder import Run, Unreadable, all_runs, survey

# What a user says -> the group it lists.
LISTS = {
    "models": "model",
    "data": "data",
    "attention": "attention",
    "regimes": "regime",
    "experiments": "experiment",
    **{group: group for group in GROUPS},
}


def print_list(words: Sequence[str], config_dirs: Sequence[str] = ()) -> int:
    """Print one list; `outputs=` before or after says where runs are.

    Raises:
        ConfigError: no such list.
    """
    targets = [word for word in words if "=" not in word]
    outputs = Path(next((w.partition("=")[2] for w in words if w.startswith("outputs=")), "outputs"))
    allowed = "models, data, attention, regimes, experiments, runs, adapters or a group"
    if len(targets) != 1 or (targets[0] not in LISTS and targets[0] not in ("runs", "adapters")):
        raise ConfigError(f"list takes one of {allowed}; got {' '.join(words) or 'nothing'}; type `vitexp list runs`")
    if targets[0] == "runs":
        runs, wrecks = survey(outputs)
        make_console().print(runs_table([*map(_row, runs), *map(_wreck, wrecks)]))
        for wreck in wrecks:
            make_console().print(f"unreadable: {clean(wreck.reason)}", soft_wrap=True)
        return 0
    if targets[0] == "adapters":
        make_console().print(value_table(_ADAPTER, [_adapter(r) for r in all_runs(outputs) if "adapter" in r.record]))
        return 0
    group = LISTS[targets[0]]
    if group == "model":
        rows = [(name, reference(name, config_dirs)) for name in options("model", config_dirs)]
        make_console().print(models_table(rows))
        return 0
    if group == "attention":
        make_console().print(value_table(*compatibility(config_dirs)))
        return 0
    found = [(name, option_file(group, name, config_dirs)) for name in options(group, config_dirs)]
    make_console().print(options_table(group, [(name, describe(file)) for name, file in found]))
    return 0


def describe(file: Path) -> str:
    """The comment at the head of an option's file, as one line."""
    lines = []
    for line in file.read_text().splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").strip())
    return " ".join(lines)


def reference(model: str, config_dirs: Sequence[str] = ()) -> dict[str, Any]:
    """The published figures that a model's file states, those of the files that it builds on included.

    Read from the files as they are, because composing each of some forty models takes seconds.
    """
    merged = dict[str, Any]()
    content = yaml.safe_load(option_file("model", model, config_dirs).read_text())
    for base in content.get("defaults", ()):
        if isinstance(base, str) and base != "_self_":
            merged |= reference(base, config_dirs)
    return merged | content.get("reference", {})


_ADAPTER = ("run", "regime", "model", "data", "parameters", "kB", TEST_TOP1, "base")


def _adapter(run: Run) -> tuple[object, ...]:
    """The row of a run with a frozen base: where, how much and how well it trained, and on which base."""
    about, chosen = run.record["adapter"], run.record.get("chosen", {})
    named = (chosen.get(group, "?") for group in ("regime", "model", "data"))
    score = run.record.get("metrics", {}).get(TEST_TOP1)
    return (run.name, *named, about["parameters"], round(about["bytes"] / 1000), score, about["base"][:12])


def _row(run: Run) -> dict[str, object]:
    chosen = run.record.get("chosen", {})
    metrics = run.record.get("metrics", {})
    best, value = headline(metrics)
    return {
        "name": run.name,
        **{group: chosen.get(group, "?") for group in ("model", "data", "regime")},
        "state": run.state,
        "metric": best,
        "value": value,
        "duration_s": run.record.get("duration_s"),
    }


def _wreck(wreck: Unreadable) -> dict[str, object]:
    chosen = dict.fromkeys(("model", "data", "regime"), "?")
    return {"name": wreck.place, **chosen, "state": "unreadable", "metric": None, "value": None, "duration_s": None}


FLAGS = ("takes_mask", "takes_context", "takes_bias", "needs_grid")


@dataclass(frozen=True, kw_only=True)
class Family:
    """The demands of a family of models, or of a regime, on an attention.

    Attributes:
        prefixes: of the files in conf/<group> that belong to it.
        needs: flags that must be set.
        on_grid: the cell of an attention that needs a grid: `yes`, `no`, or the condition on which it works.
    """

    title: str
    prefixes: tuple[str, ...]
    on_grid: str
    needs: tuple[str, ...] = ()
    group: str = "model"

    @property
    def members(self) -> list[str]:
        return [option for option in options(self.group) if option.startswith(self.prefixes)]


MEAN_POOLING = "with model.pool=mean"
FAMILIES = (
    Family(title="ViT, DeepViT", prefixes=("vit_", "deepvit_"), on_grid=MEAN_POOLING),
    Family(title="NaViT", prefixes=("navit",), on_grid="no", needs=("takes_mask",)),
    Family(
        title="masked memory",
        prefixes=("memory_masked",),
        on_grid="no",
        needs=("takes_mask", "takes_context"),
        group="regime",
    ),
    Family(title="Swin V2", prefixes=("swinv2",), on_grid="no", needs=("takes_mask", "takes_bias")),
    Family(title="MobileViT", prefixes=("mobilevit",), on_grid="no"),
    Family(title="EfficientViT", prefixes=("efficientvit",), on_grid="yes"),
)


def compatibility(config_dirs: Sequence[str] = ()) -> tuple[list[str], list[list[str]]]:
    """Names of the columns, and a row for each option of attention=."""
    families = [family for family in FAMILIES if family.members]
    columns = ["attention=", "mask, context", "bias", "grid", *(family.title for family in families)]
    rows = []
    for option in options("attention", config_dirs):
        found = flags(option, tuple(config_dirs))
        own = [found["takes_mask"] and found["takes_context"], found["takes_bias"], found["needs_grid"]]
        cells = [_native(family, option) or cell(family, found) for family in families]
        rows.append([option, *("yes" if flag else "no" for flag in own), *cells])
    return columns, rows


def cell(family: Family, found: Mapping[str, bool]) -> str:
    """Whether an attention with these flags works in a family: yes, no, or on what condition."""
    if not all(found[flag] for flag in family.needs):
        return "no"
    return family.on_grid if found["needs_grid"] else "yes"


def family_of(model: str) -> Family | None:
    """The family of an option of model=."""
    return next((family for family in FAMILIES if family.group == "model" and model.startswith(family.prefixes)), None)


@cache
def flags(option: str, config_dirs: tuple[str, ...] = ()) -> dict[str, bool]:
    """The flags of the class behind attention=<option>; one that neither it nor its bases set is False."""
    content = yaml.safe_load(option_file("attention", option, config_dirs).read_text())
    module, _, name = content["_target_"].rpartition(".")
    # Code stands beside its folder of options, or one or two folders above it: vitexp/conf, ../conf.
    places = [place for root in roots(config_dirs) for place in (root, root.parent, root.parent.parent)]
    return dict.fromkeys(FLAGS, False) | _class_flags(module, name, places)


def _class_flags(module: str, name: str, places: Sequence[Path]) -> dict[str, bool]:
    """Flags set in the body of a class, those of its bases first; none of a class whose file is in no place."""
    parts = module.split(".")
    files = (place.joinpath(*parts) for place in places)
    file = next((f for path in files for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()), None)
    if file is None:
        return {}
    tree = ast.parse(file.read_text())
    imported = {
        alias.asname or alias.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    found: dict[str, bool] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for base in reversed([base.id for base in node.bases if isinstance(base, ast.Name)]):
                found |= _class_flags(imported.get(base, module), base, places)
            found |= dict(_assigned(node.body))
    return found


def _assigned(body: Iterable[ast.stmt]) -> Iterable[tuple[str, bool]]:
    for node in body:
        target = node.target if isinstance(node, ast.AnnAssign) else None
        known = isinstance(target, ast.Name) and target.id in FLAGS
        if known and isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Constant):
            yield target.id, bool(node.value.value)  # type: ignore[union-attr]


def _native(family: Family, option: str) -> str:
    """`native` where a model of the family is published with this attention, else nothing."""
    if family.group != "model":
        return ""
    return "native" if option in {published_attention(model) for model in family.members} else ""


@cache
def published_attention(model: str) -> str:
    """The attention that a model's file chooses, or the file that it builds on, or conf/config.yaml for all."""
    content = yaml.safe_load((conf_dir() / "model" / f"{model}.yaml").read_text())
    defaults = content.get("defaults", ())
    for entry in defaults:
        if isinstance(entry, dict) and "override /attention" in entry:
            return str(entry["override /attention"])
    for entry in defaults:
        if isinstance(entry, str) and entry != "_self_":
            return published_attention(entry)
    shipped = yaml.safe_load((conf_dir() / "config.yaml").read_text())["defaults"]
    return next(str(entry["attention"]) for entry in shipped if isinstance(entry, dict) and "attention" in entry)
