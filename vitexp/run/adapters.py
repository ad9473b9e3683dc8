"""Tasks on one frozen base: what the adapter of a run says of itself, and which adapters belong together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitexp.checkpoint.adapter import ADAPTER, BASE, Adapter, read_adapter, write_adapter
from vitexp.contract import HasBase
from vitexp.data.base import ImageData
from vitexp.errors import CheckpointError, ConfigError
from vitexp.run.folder import RULES, Run, find

# What two adapters must share to live in one model: the words in a message, and where they stand in the header.
_SHARED = ("model", "attention", "image_size", "channels", "mean", "std", "memory_norm")
JOINABLE = ("memory_masked", "extension")
CONCAT = "concat"


def save_adapter(run: Run, data: ImageData, model: Any, names: frozenset[str] | None, about: Mapping[str, Any]) -> None:
    """Write what trained into the run's folder; nothing where no base was frozen.

    Args:
        run: the run.
        data: the images of the task.
        model: with a base.
        names: of the tensors that trained; None where no base was frozen.
        about: `metrics`, `memory_norm` and the options chosen for regime, model, attention and data.
    """
    if names is None:
        return
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name in names}
    said = {key: about[key] for key in ("regime", "model", "attention", "data", "metrics", "memory_norm")}
    own = {key: getattr(data, key) for key in ("image_size", "channels", "mean", "std")}
    header = {BASE: model.fingerprint, "run": run.name, **said, **own, "classes": list(data.class_names)}
    header["earlier"] = (
        list(model.earlier) if isinstance(model, HasBase) else []
    )  # the tasks that this one reads, by their digests
    header["rules"] = run.folder.text(RULES)
    write_adapter(run.path / ADAPTER, tensors, header)
    count = sum(tensor.numel() for tensor in tensors.values())
    run.update(adapter={BASE: model.fingerprint, "parameters": count, "bytes": (run.path / ADAPTER).stat().st_size})


def find_adapters(references: Sequence[str], outputs: Path) -> list[Adapter]:
    """The adapters that runs (as `run=` names them) or files hold, which can be joined on one base.

    Raises:
        ConfigError: none given, or of a regime that changes the base's output.
        CheckpointError: no adapter, or two that differ in what they must share; the message names it.
    """
    if not references:
        raise ConfigError(
            "concat joins trained memories and none is given; name their runs, as in adapters=[run_a,run_b]; "
            "`vitexp list adapters` shows them"
        )
    paths = [Path(r) if Path(r).is_file() else find(r, outputs).path for r in references]
    adapters = [read_adapter(path) for path in paths]
    for adapter in adapters:
        if adapter.about["regime"] not in JOINABLE:
            raise ConfigError(
                f"{adapter.path} is of regime={adapter.about['regime']}, whose tokens change what the base computes; "
                f"concat takes {' and '.join(JOINABLE)}; train it again with regime=memory_masked"
            )
        _require_alike(adapters[0], adapter)
    digests = [adapter.digest for adapter in adapters]
    if len(set(digests)) < len(digests):
        raise ConfigError(f"adapters={list(references)} names one task twice; give each once")
    return adapters


def _require_alike(first: Adapter, other: Adapter) -> None:
    """Raise CheckpointError for the first thing in which two adapters differ and may not."""
    here, there = dict(first.about), dict(other.about)
    for key in (BASE, *_SHARED):
        one, two = here[key], there[key]
        if one != two:
            short = (lambda value: str(value)[:12]) if key == BASE else str
            word = "the base's fingerprint" if key == BASE else key
            raise CheckpointError(
                f"{word} is {short(one)} in {first.path} and {short(two)} in {other.path}; memories are joined on one "
                "base with one size and one normalisation; train them alike"
            )


def task_names(adapters: Sequence[Adapter]) -> list[str]:
    """The data sets' names, numbered where one comes twice."""
    names: list[str] = []
    for adapter in adapters:
        name, number = str(adapter.about["data"]), 2
        while name in names:
            name, number = f"{adapter.about['data']}-{number}", number + 1
        names.append(name)
    return names
