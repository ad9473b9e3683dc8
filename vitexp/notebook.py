"""The notebook surface: the command line's own steps as functions."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from vitexp.config import compose as config

if TYPE_CHECKING:
    from torch import nn


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """The checked configuration of a command: `compose(["model=vit_ti16", "data=cifar100", "lr=3e-4"])`."""
    return config.compose(overrides)


def build_model(cfg: DictConfig) -> "nn.Module":
    """The model of a configuration, weights loaded (`checkpoint=`), regime applied."""
    from vitexp import build

    return build.build_model(cfg)


def load_run(reference: str = "last", *, outputs: str | Path = "outputs") -> "nn.Module":
    """The trained model of a run, in eval mode: `load_run("last")(images)`; images normalised as in its config.yaml.

    Args:
        reference: `last`, a run's name, a unique prefix of it, or its folder.
        outputs: where the runs are.
    """
    from vitexp import build
    from vitexp.run.folder import find
    from vitexp.verb.evaluate import trained_on

    config.register()
    run = find(reference, Path(outputs))
    cfg = run.config()
    trained_on(run, cfg)
    return build.build_model(cfg, new_head=False).eval()
