"""Weights & Biases as a tracker that can only ever be missing: it never asks, never waits long, never stops a run.

Without a key or a network the run is recorded offline, and one line says how to upload it. Nothing is sent beside the
metrics, the pictures, the configuration without secrets and the machine's load: no code, no console, no command line,
no git remote, no crash reports.
"""

import logging
import netrc
import os
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from vitexp.errors import first_line
from vitexp.logger.tracker import Session

log = logging.getLogger(__name__)

_HOST = "https://api.wandb.ai"


@dataclass(frozen=True, kw_only=True)
class WandbSettings:
    """`logger.wandb` of the configuration.

    `project` and `entity` (user or team; null = the account's own) say where runs go. Times are in seconds: to see
    whether the server answers, to start a run there, to upload what is left at the end.
    """

    project: str
    entity: str | None
    probe_seconds: float
    start_seconds: float
    finish_seconds: float


class Wandb:
    """One wandb run."""

    name = "wandb"

    def __init__(self, run: Any) -> None:
        import wandb

        self.id = str(run.id)
        self.errors = (wandb.errors.Error, OSError)  # OSError: the pipe to a service that has died
        self._run = run

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log at `step`; wandb takes rising steps only."""
        self._run.log(dict(metrics), step=step)

    def picture(self, name: str, path: Path, step: int) -> None:
        """Upload a PNG."""
        import wandb

        self._run.log({name: wandb.Image(str(path))}, step=step)

    def finish(self, exit_code: int) -> None:
        """End the run there; waits for the upload, at most as long as the run was started with."""
        try:
            self._run.finish(exit_code=exit_code)
        finally:
            # Its process writes on for some ms after `finish`: only its end means that the record is on disk.
            _forget_service()


def start(settings: Mapping[str, Any], session: Session) -> Wandb | None:
    """A run at wandb: online with a key and a network, else offline; None where wandb is not wanted or not possible.

    With `logger=wandb` also without a key, then offline; $WANDB_MODE stays in force. The files go to `wandb/` in the
    run folder.
    """
    own = WandbSettings(**settings["wandb"])
    asked, key = os.environ.get("WANDB_MODE", "").lower(), has_key()
    if asked == "disabled" or not (key or settings["choice"] == "wandb") or not _installed():
        return None
    reason = None
    if asked in ("offline", "dryrun"):
        reason = f"WANDB_MODE={asked}"
    elif not key:
        reason = "no key ($WANDB_API_KEY or ~/.netrc)"
    elif not reachable(base_url(), timeout=own.probe_seconds):
        reason = f"{base_url()} does not answer"
    run, reason = _init(own, session, reason)
    if run is None:
        log.warning("wandb does not start (%s); the run goes on without it", reason)
        return None
    if reason is None:
        log.info("wandb: %s", run.url)
    else:
        log.warning("wandb is offline (%s); later: wandb sync %s", reason, Path(run.dir).parent)
    return Wandb(run)


def _installed() -> bool:
    """Whether wandb can be imported; a line says so where it cannot."""
    found = find_spec("wandb") is not None
    if not found:
        log.warning(
            "wandb has a key and is not installed; the run goes on without it; later: pip install 'vitexp[wandb]'"
        )
    return found


def base_url() -> str:
    """The server: $WANDB_BASE_URL, else wandb's own."""
    return os.environ.get("WANDB_BASE_URL") or _HOST


def has_key() -> bool:
    """Whether a key is configured for the server, in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        entry = netrc.netrc(path).hosts.get(urlsplit(base_url()).netloc)
    except (OSError, netrc.NetrcParseError):
        return False
    return entry is not None and bool(entry[2])


def reachable(url: str, *, timeout: float) -> bool:
    """Whether the server of `url`, or the proxy before it, takes a connection within `timeout` seconds.

    In a thread, because looking up a name obeys no socket timeout.
    """
    target = urlsplit(url)
    proxy = getproxies().get(target.scheme)
    if proxy and target.hostname and not proxy_bypass(target.hostname):
        target = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    address = (target.hostname or "", target.port or (443 if target.scheme == "https" else 80))
    answered = threading.Event()

    def probe() -> None:
        try:
            socket.create_connection(address, timeout=timeout).close()
        except OSError:
            return
        answered.set()

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(timeout)
    return answered.is_set()


def _init(settings: WandbSettings, session: Session, reason: str | None) -> tuple[Any, str | None]:
    """The run, online if `reason` is None; on failure offline; (None, why) if that fails too."""
    # Read by wandb when it is first used: no notices of its own, no crash reports.
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    options = wandb.Settings(
        console="off",
        silent=True,
        disable_code=True,
        disable_git=True,
        save_code=False,
        x_disable_meta=True,
        init_timeout=settings.start_seconds,
        finish_timeout=settings.finish_seconds,
    )
    known = session.ids.get("wandb")
    for mode in ("online", "offline") if reason is None else ("offline",):
        try:
            run = wandb.init(
                project=settings.project,
                entity=settings.entity,
                mode=mode,
                settings=options,
                reinit="finish_previous",
                dir=str(session.run_dir),
                name=session.run_name,
                group=session.group,
                config=dict(session.config),
                id=known,
                resume="allow" if known else None,
            )
            return run, reason
        except (wandb.errors.Error, OSError) as error:
            reason = first_line(error)
            _forget_service()  # else the id counts as in use
    return None, reason


def _forget_service() -> None:
    """End wandb's background process, alive or dead: it has written all, and cannot fail again at exit."""
    import wandb

    try:
        wandb.teardown()
    except (wandb.errors.Error, OSError) as error:
        log.debug("wandb teardown: %s", error)
