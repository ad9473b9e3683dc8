"""The command of the user, as the verbs receive it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from vitexp.errors import ConfigError, VitexpError
from vitexp.machine.resources import Asked, resource_error


@dataclass(frozen=True)
class Command:
    """One command, checked: the verbs take it and return their metrics.

    `overrides` are in canonical form (`optimizer.lr=0.001`), `argv` is as typed, `folder` is set for a job of a sweep.
    """

    cfg: DictConfig
    overrides: Sequence[str]
    argv: Sequence[str]
    folder: Path | None = None


# Verb -> (module with a function of the same name, one line of help). A verb never contains `=`.
VERBS = {
    "train": ("vitexp.verb.train", "train a model, test it once at the end (the default)"),
    "evaluate": ("vitexp.verb.evaluate", "test a run (run=last) or a checkpoint, here or on other data"),
    "resume": ("vitexp.verb.resume", "continue an interrupted run in its own folder"),
    "predict": ("vitexp.verb.predict", "label images: vitexp predict run=last image='photos/*.jpg'"),
    "export": ("vitexp.verb.export", "write weights for timm, onnxruntime or safetensors: to=timm|onnx|safetensors"),
    "report": ("vitexp.verb.report", "one self-contained page: of a run (run=last), or comparing several (runs=a,b,c)"),
    "dashboard": ("vitexp.verb.dashboard", "all runs in the browser, running ones live; on this machine only"),
    "analyze": ("vitexp.verb.analyze", "look inside a model: vitexp analyze analysis=similarity run=last"),
    "prune": ("vitexp.verb.prune", "cut what a run needs least, fine-tune: vitexp prune run=last analysis.budget=0.5"),
    "concat": ("vitexp.verb.concat", "join trained memories in one model: adapters=[run_a,run_b] checkpoint=BASE"),
    "check": (
        "vitexp.verb.check",
        "look through a data set before training: vitexp data check data=folder data.root=...",
    ),
    "list": ("vitexp.verb.list", "models, data, attention, regimes, experiments, runs or adapters"),
    "new": ("vitexp.verb.new", "a part of your own to start from: vitexp new model mynet, attention, data, ..."),
    "benchmark": ("vitexp.verb.benchmark", "speed as ratios in one run: our model, timm's, a bare loop"),
}

# Verb -> what it implies, unless the group is given.
IMPLIED = {"prune": "analysis=taylor"}


def implied(verb: str, words: Sequence[str]) -> list[str]:
    """The words of a command with what its verb implies in front; several sizes, or several runs, as one value."""
    if verb == "evaluate":
        words = [_sizes(word) for word in words]
    if verb == "report":
        words = [f"runs='{word[5:]}'" if word.startswith("runs=") and "," in word else word for word in words]
    word = IMPLIED.get(verb)
    given = word is None or any(other.startswith(f"{word.partition('=')[0]}=") for other in words)
    return list(words) if word is None or given else [word, *words]


def _sizes(word: str) -> str:
    """`size=64,96,native` as `sizes=[64,96,native]`: one test a size, not a sweep."""
    key, _, value = word.partition("=")
    several = key in ("size", "data.image_size") and ("," in value or value == "native")
    return f"sizes=[{value}]" if several else word


@contextmanager
def naming_resources(cfg: DictConfig) -> Iterator[None]:
    """Raise ResourceError in place of what says that memory or disk gave out; all else passes as it is."""
    try:
        yield
    except VitexpError:
        raise
    except Exception as error:
        size, data = cfg.data.image_size, cfg.data
        asked = Asked(
            batch_size=data.batch_size, image_size=size, accumulate=cfg.trainer.accumulate, outputs=cfg.outputs
        )
        named = resource_error(error, asked)
        if named is None:
            raise
        raise named from error


def call(verb: str, command: Command) -> dict[str, Any]:
    """Run a verb; its module, and with it torch, is imported now.

    Raises:
        ConfigError: `bs=auto` for a verb that trains nothing.
        ResourceError: memory, disk or a permission gave out, whatever said so.
    """
    if verb not in ("train", "resume") and command.cfg.trainer.accumulate == "auto":
        raise ConfigError(f"bs=auto is for training, and {verb} takes the batch size as it is; give a number, bs=64")
    module, _ = VERBS[verb]
    function = getattr(import_module(module), verb)
    with naming_resources(command.cfg):
        result: dict[str, Any] = function(command)
    return result
