"""`vitexp dashboard`: all runs in the browser, on this machine only; running ones are drawn as they go.

It serves pages made from run folders and nothing else: a request names a run, never a file. It listens on the loopback
address, and answers only requests addressed to it there, so that a page of another site cannot read it through a name
that it points at this machine.
"""

import webbrowser
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from vitexp.config.command import Command
from vitexp.errors import ResourceError, VitexpError
from vitexp.report.metrics import headline
from vitexp.report.page import number_cell, render
from vitexp.report.run_page import run_page
from vitexp.report.screen import say
from vitexp.report.text import clean, duration, number
from vitexp.run.folder import Run, survey
from vitexp.verb.report import asked

HOST = "127.0.0.1"
_REFRESH_S = 5
_COLUMNS = ("run", "model", "attention", "data", "regime", "state", "metric", "value", "epochs", "time", "started")


def dashboard(command: Command) -> dict[str, Any]:
    """Serve until Ctrl-C.

    Raises:
        ResourceError: the port is taken.
    """
    cfg = command.cfg
    server = make_server(Path(cfg.outputs), cfg.port)
    address = f"http://{HOST}:{server.server_port}/"
    say(f"{address} shows the runs in {cfg.outputs}; Ctrl-C stops", quiet=cfg.quiet)
    if cfg.open:
        webbrowser.open(address)
    with server:
        server.serve_forever()
    return {}


def make_server(outputs: Path, port: int) -> ThreadingHTTPServer:
    """A server of the runs under `outputs`; port 0 takes a free one."""

    class Handler(BaseHTTPRequestHandler):
        server_version = "vitexp"

        def do_GET(self) -> None:
            allowed = {f"{name}:{server.server_port}" for name in (HOST, "localhost")}
            if self.headers.get("Host") not in allowed:
                _answer(self, 403, "this server answers only on its own address")
                return
            page = _page(outputs, unquote(self.path.partition("?")[0]))
            _answer(self, *(page if page is not None else (404, "no such run")))

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the terminal is for what matters."""

    try:
        server = ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        said = f"port={port} cannot be listened on ({error.strerror})"
        raise ResourceError(f"{said}; use another, as port={port + 1}, or port=0 for a free one") from None
    return server


def _answer(handler: BaseHTTPRequestHandler, status: int, text: str) -> None:
    body = text.encode(errors="backslashreplace")
    handler.send_response(status)
    handler.send_header("Content-Type", "text/html; charset=utf-8" if status == 200 else "text/plain; charset=utf-8")
    handler.send_header("Content-Length", str(len(body)))
    handler.send_header("Cache-Control", "no-store")
    handler.send_header("X-Content-Type-Options", "nosniff")
    handler.end_headers()
    handler.wfile.write(body)


def _page(outputs: Path, path: str) -> tuple[int, str] | None:
    """Status and text of a page, or None if there is none."""
    if path == "/":
        return _guarded(lambda: index_page(outputs))
    if not path.startswith("/run/"):
        return None
    reference = path.removeprefix("/run/")
    run = next((run for run in survey(outputs)[0] if _reference(run) == reference), None)
    return None if run is None else _guarded(lambda: _run(run))


def _guarded(make: Callable[[], str]) -> tuple[int, str]:
    """A folder that is damaged costs one page and not the server."""
    try:
        return 200, make()
    except (VitexpError, OSError, ValueError) as error:
        return 500, f"this cannot be shown: {clean(error)}"


def _run(run: Run) -> str:
    refresh = _REFRESH_S if run.state == "running" else 0
    return run_page(run.folder, run.record, state=run.state, asked=asked(run), back="/", refresh=refresh)


def _reference(run: Run) -> str:
    """A run's place under outputs: names of jobs repeat between sweeps, places do not."""
    return "/".join(run.folder.parts)


def index_page(outputs: Path) -> str:
    """The table of all runs, newest first."""
    runs, wrecks = survey(outputs)
    rows = [_row(run) for run in reversed(runs)]
    rows += [[clean(wreck.place), *["?"] * 4, "unreadable", "", *[number_cell(None, "")] * 3, ""] for wreck in wrecks]
    problems = [clean(wreck.reason) for wreck in wrecks]
    context = {"title": "vitexp", "outputs": clean(outputs.resolve()), "columns": _COLUMNS, "rows": rows}
    context["problems"] = problems
    return render("dashboard.html", charts=[], context=context, refresh=_REFRESH_S)


def _row(run: Run) -> list[Any]:
    chosen, metrics = run.record.get("chosen", {}), run.record.get("metrics", {})
    (best, value), seconds = headline(metrics), run.record.get("duration_s")
    return [
        number_cell(None, run.name, link=f"/run/{quote(_reference(run))}"),
        *(str(chosen.get(group, "?")) for group in ("model", "attention", "data", "regime")),
        run.state,
        best or "",
        number_cell(value, number(value)),
        number_cell(run.record.get("epochs"), str(run.record.get("epochs", ""))),
        number_cell(seconds, duration(seconds)),
        str(run.record.get("started", "")),
    ]
