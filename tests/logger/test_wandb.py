"""Weights & Biases without an account, without a network, and dying: the run goes on. Nothing leaves this machine."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitexp.logger import wandb as tracker
from vitexp.logger.choose import without_secrets
from vitexp.logger.tracker import RunLogger, Session
from vitexp.logger.wandb import has_key, reachable
from vitexp.run.fit import session_of
from vitexp.run.folder import Run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb.*")

DEAD = "http://127.0.0.1:9"
SETTINGS = {"project": "vitexp", "entity": None, "probe_seconds": 2.0, "start_seconds": 20.0, "finish_seconds": 5.0}
CANARY = "canary-0123456789"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No key, a dead server, nothing of the user's; and no service left behind."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("NETRC", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("WANDB_BASE_URL", DEAD)
    # Set by the logger itself; here so that they are taken back.
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    import wandb  # here, so that the time a start takes is not the time a busy machine needs to import it

    yield
    wandb.teardown()


@pytest.fixture
def no_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*args: object) -> str:
        raise AssertionError("wandb asked for input")

    monkeypatch.setattr("builtins.input", ask)


def start(folder: Path, *, forced: bool = True, ids: dict[str, str] | None = None, **config: Any) -> RunLogger:
    session = Session(
        run_dir=folder,
        run_name="r",
        config=without_secrets(config),
        group="sweep",
        resume_step=None,
        ids=ids or {},
    )
    found = tracker.start({"choice": "wandb" if forced else "auto", "wandb": SETTINGS}, session)
    return RunLogger([] if found is None else [found])


@pytest.fixture
def refusing_server() -> Iterator[str]:
    """A server that answers everything with 401."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            body = b'{"errors":[{"message":"invalid key"}]}'
            self.send_response(401)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.usefixtures("no_stdin")
def test_offline_without_a_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    began = time.monotonic()
    logger = start(tmp_path, lr=0.5, data={"api_key": CANARY}, password=CANARY)
    (kept_id,) = logger.ids.values()
    assert time.monotonic() - began < 15
    (line,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    folder = Path(line.rpartition("wandb sync ")[2])
    assert folder.is_dir()
    assert folder.is_relative_to(tmp_path)
    picture = tmp_path / "p.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(picture)
    logger.log_metrics({"train/loss_step": 0.5}, 5)
    logger.log_metrics({"val/top1": 0.25}, 4)
    logger.log_picture("loss", picture, 6)
    logger.close(exit_code=0)
    logger.log_metrics({"late": 1.0}, 7)  # after the end: nothing, and no error
    record = b"".join(path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file())
    assert b"train/loss_step" in record
    assert CANARY.encode() not in record
    left = {path.relative_to(folder).parts[0] for path in folder.rglob("*") if path.is_file()}
    assert left == {"files", "logs", f"run-{kept_id}.wandb"}
    told = {str(path.relative_to(folder / "files")) for path in (folder / "files").rglob("*") if path.is_file()}
    kept = {name for name in told if not name.startswith("media/")}
    assert kept <= {"requirements.txt"}, "no console output, no code, no description of the machine"


@pytest.mark.usefixtures("no_stdin")
def test_a_resume_keeps_the_id(tmp_path: Path) -> None:
    logger = start(tmp_path)
    ids = logger.ids
    assert ids.keys() == {"wandb"}
    logger.close(exit_code=130)
    again = start(tmp_path, ids=ids)
    assert again.ids == ids
    again.close(exit_code=0)


@pytest.mark.usefixtures("no_stdin")
def test_a_refused_key_falls_back_to_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, refusing_server: str
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", refusing_server)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    logger = start(tmp_path, forced=False, ids={"wandb": "kept0000"})
    assert logger.ids == {"wandb": "kept0000"}
    assert len([record for record in caplog.records if "wandb sync" in record.message]) == 1
    logger.close(exit_code=0)


def test_a_dead_service_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import wandb

    logger = start(tmp_path)
    assert logger.trackers
    # The service is this process's only child that bears its name.
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if not children.exists():
        pytest.skip("finding the service's process needs /proc")
    pids = [int(pid) for pid in children.read_text().split()]
    (service,) = [pid for pid in pids if "wandb-core" in Path(f"/proc/{pid}/comm").read_text()]
    os.kill(service, signal.SIGKILL)
    time.sleep(0.5)
    caplog.clear()
    for step in range(3):
        logger.log_metrics({"lr": 0.5}, step)
    logger.close(exit_code=0)
    assert len([record for record in caplog.records if "goes on without it" in record.message]) == 1
    assert issubclass(wandb.errors.CommError, wandb.errors.Error)


def test_auto_wants_a_key_and_wandb_mode_is_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not start(tmp_path, forced=False).trackers
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    assert not start(tmp_path).trackers
    assert not (tmp_path / "wandb").exists()


def test_keys_are_found_in_the_environment_and_for_the_right_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    assert not has_key()
    netrc.write_text("machine api.wandb.ai login user password x\n")
    netrc.chmod(0o600)
    assert not has_key()  # the server is another one
    monkeypatch.delenv("WANDB_BASE_URL")
    assert has_key()
    for useless in ("machine api.wandb.ai login", "nonsense"):
        netrc.write_text(useless)
        assert not has_key()
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert has_key()


def test_reachable_is_quick_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not reachable(DEAD, timeout=2.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert reachable(url, timeout=2.0)
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setenv("no_proxy", "")
        assert reachable("http://wandb.invalid", timeout=2.0)  # the proxy answers for it
    monkeypatch.delenv("http_proxy")

    def hang(*args: object, **options: object) -> socket.socket:
        time.sleep(2.0)
        raise OSError

    monkeypatch.setattr(socket, "create_connection", hang)
    began = time.monotonic()
    assert not reachable("http://wandb.invalid", timeout=0.2)
    assert time.monotonic() - began < 1.0


def test_the_jobs_of_a_sweep_are_one_group() -> None:
    folders = ("sweeps/2026-11-24_101500/0-seed=0", "sweeps/2026-11-24_101500/1-seed=1", "2026-11-24/101500-alone")
    groups = [session_of(Run(Path(folder)), {}, None).group for folder in folders]
    assert groups == ["2026-11-24_101500", "2026-11-24_101500", None]
