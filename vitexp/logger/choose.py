"""The trackers of a run: metrics.csv always, the others as `logger=` says, with the same metric names."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from vitexp.errors import ConfigError, require_extra
from vitexp.logger.metrics_file import MetricsFile
from vitexp.logger.tracker import RunLogger, Session, Tracker
from vitexp.machine.rank import is_first

CHOICES = ("auto", "tensorboard", "csv", "wandb", "mlflow", "trackio", "none")
_TRACKERS = {"auto": ("tensorboard", "wandb"), "csv": (), "none": ()}  # the other choices are a tracker each
_SECRETS = {"key", "token", "secret", "password"}
_EXTRAS = ("wandb", "mlflow", "trackio")


def build_logger(settings: Mapping[str, Any], session: Session) -> RunLogger:
    """The logger for `logger=`, metrics.csv first; an empty one in the further processes of a run.

    Args:
        settings: `choice`, and the keys of that choice's file in conf/logger/; or `own`, which makes a user's tracker.
        session: what each tracker is told.

    Raises:
        ConfigError: a choice that is unknown or not installed, or metrics of another run in the folder.
        ResourceError: the folder cannot be written.
    """
    shown = trackers(settings, session)
    if not is_first():
        return RunLogger([])
    return RunLogger([MetricsFile(session.run_dir / "metrics.csv", resume_step=session.resume_step), *shown])


def trackers(settings: Mapping[str, Any], session: Session) -> list[Tracker]:
    """Those of `logger=` beside metrics.csv; each is started by its module here, which bears its name."""
    if "own" in settings:
        return [settings["own"](session=session)] if is_first() else []
    choice = settings["choice"]
    require_choice(choice)
    names = _TRACKERS.get(choice, (choice,)) if is_first() else ()
    started = [import_module(f"vitexp.logger.{name}").start(settings, session) for name in names]
    return [tracker for tracker in started if tracker is not None]


def require_choice(choice: str) -> None:
    """Raise ConfigError unless `logger=` is known and its package is installed."""
    if choice not in CHOICES:
        raise ConfigError(f"logger.choice={choice} is not known; use {', '.join(CHOICES)}")
    if choice in _EXTRAS:
        require_extra(choice, choice, asked=f"logger={choice}")


def without_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without text under keys such as `api_key` or `password`, at any depth."""
    return {
        key: without_secrets(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if not (isinstance(value, str) and str(key).lower().split("_")[-1] in _SECRETS)
    }
