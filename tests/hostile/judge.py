"""The judge of hostile input: a command is run on it, and what became of it is held against rules that hold for all.

`judge(["list", "runs"], folder=tmp_path / "work", canaries=["secret"])` runs the command line in a process of its own,
forked from a server that has imported everything, with `folder` as its working directory. `dashboard` is visited: the
index and each page that it links to are fetched and printed. Not a test itself.
"""

import atexit
import base64
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from vitexp.errors import EXIT_CODES

SECONDS = 20.0  # of the processor's time, so that other work on the machine is nobody's fault
_WALL_S = 60.0
MAX_BYTES = 2 * 2**30
_TICK_S = 0.02
_CODES = EXIT_CODES.keys() - {1}
_READ_BYTES = 64 * 2**20  # of a file that the command has written: more is no page or table


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    `code` is the exit code, negative for a signal; `seconds` the processor's time, or how long it waited in vain;
    `peak_bytes` the most memory beyond that of an idle process;
    `faults` the rules that it broke, one line each.
    """

    code: int
    out: str
    err: str
    seconds: float
    peak_bytes: int
    faults: tuple[str, ...]


def judge(argv: Sequence[str], *, folder: Path, canaries: Sequence[str] = ()) -> Outcome:
    """Run a command and require that it held; `observe` with an assertion."""
    outcome = observe(argv, folder=folder, canaries=canaries)
    said = f"{outcome.out[-2000:]}\n{outcome.err[-4000:]}"
    assert not outcome.faults, "\n".join([f"vitexp {' '.join(argv)}", *outcome.faults, said])
    return outcome


def observe(argv: Sequence[str], *, folder: Path, canaries: Sequence[str] = ()) -> Outcome:
    """Run `vitexp argv` in `folder` and note every rule that it breaks.

    The rules: the exit code is a documented one and not 1; the answer takes less than 20 s and 2 GiB, and comes;
    nothing beside `folder` (in the folder that holds it) is written, made or taken away; what is printed has no
    control character; no canary is printed, nor stands, plain or in base64, in a file that the command wrote.

    Args:
        argv: the words of the command.
        folder: the working directory; what must stay untouched stands beside it.
        canaries: text that is in files which the command may not show.
    """
    beside, before = _outside(folder), _inside(folder)
    code, seconds, peak, out, err = _Server.running().run(argv, folder)
    faults = []
    if code not in _CODES:
        faults.append(f"exit code {code}")
    if seconds >= SECONDS:
        faults.append(f"no answer in {seconds:.0f} s")
    if peak >= MAX_BYTES:
        faults.append(f"{peak / 2**30:.1f} GiB of memory")
    after = _outside(folder)
    faults += [f"touched {path}" for path in sorted(beside.keys() | after) if beside.get(path) != after.get(path)]
    raw = sorted({char for char in out + err if not char.isprintable() and char not in "\n\t"})
    faults += [f"printed {char!r}" for char in raw]
    needles = {canary: _spellings(canary) for canary in canaries}
    shown = {"the screen": (out + err).encode("utf-8", "replace"), **_written(folder, before)}
    for canary, spellings in needles.items():
        places = [place for place, content in shown.items() if any(spelling in content for spelling in spellings)]
        faults += [f"{canary!r} is in {place}" for place in places]
    return Outcome(code, out, err, seconds, peak, tuple(faults))


def _spellings(canary: str) -> list[bytes]:
    """The canary as it is, and in base64 at each of three alignments."""
    plain = canary.encode()
    aligned = [base64.b64encode(b"\0" * shift + plain)[(shift * 8 + 5) // 6 :] for shift in range(3)]
    return [plain, *(code.rstrip(b"=")[:-1] for code in aligned)]


def _paths(folder: Path, *, skip: Path | None = None) -> list[Path]:
    """Everything below a folder, no link followed."""
    found: list[Path] = []
    for entry in os.scandir(folder):
        path = Path(entry.path)
        if path == skip:
            continue
        found.append(path)
        if entry.is_dir(follow_symlinks=False):
            found += _paths(path)
    return found


def _outside(folder: Path) -> dict[Path, tuple[object, ...]]:
    """Kind, permission, size, change and content of everything beside `folder`."""
    return {path: _state(path) for path in _paths(folder.parent, skip=folder)}


def _state(path: Path) -> tuple[object, ...]:
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        return (found.st_mode, os.readlink(path) if path.is_symlink() else "")
    content = hashlib.sha256(path.read_bytes()).digest() if found.st_size < _READ_BYTES else b""
    return (found.st_mode, found.st_size, found.st_mtime_ns, content)


def _inside(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in _paths(folder)}


def _written(folder: Path, before: dict[Path, tuple[int, int]]) -> dict[str, bytes]:
    """The regular files that are new or changed, with their content."""
    changed = [path for path, state in _inside(folder).items() if before.get(path) != state]
    return {str(path): _content(path) for path in changed if stat.S_ISREG(path.lstat().st_mode)}


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_READ_BYTES)


class _Server:
    """A process that has imported vitexp, and forks itself for each command."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}
        environment.pop("COLUMNS", None)
        arguments = [sys.executable, "-m", "tests.hostile.judge"]
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
        )
        assert self._stream("stdout").readline(), "the server of commands did not start"
        atexit.register(self._process.communicate)  # which ends it

    @staticmethod
    @cache
    def running() -> "_Server":
        """The one of this process; it ends with it, as its standard input does."""
        return _Server()

    def run(self, argv: Sequence[str], folder: Path) -> tuple[int, float, int, str, str]:
        """Exit code, seconds, bytes of memory at most, standard output and standard error."""
        self._stream("stdin").write(json.dumps([list(argv), str(folder)]) + "\n")
        self._stream("stdin").flush()
        answer = self._stream("stdout").readline()
        assert answer, "the server of commands has died"
        code, seconds, peak, out, err = json.loads(answer)
        return code, seconds, peak, out, err

    def _stream(self, name: str) -> IO[str]:
        stream: IO[str] = getattr(self._process, name)
        return stream


ROOT = Path(__file__).resolve().parents[2]


def _serve() -> None:
    """Read commands, run each in a fork, answer with what became of it."""
    import importlib

    from vitexp.cli import main
    from vitexp.config.command import VERBS

    for module in {module for module, _ in VERBS.values()} | {"vitexp.verb.list", "vitexp.sweep.command"}:
        importlib.import_module(module)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries say at import is no answer
    answers.write("ready\n")
    for request in sys.stdin:
        argv, folder = json.loads(request)
        outputs = [os.memfd_create(name) for name in ("out", "err")]
        start = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _child(main, argv, folder, outputs)
        code, seconds, peak = _watch(pid, start)
        said = [_read(descriptor) for descriptor in outputs]
        answers.write(json.dumps([code, seconds, peak, *said]) + "\n")


def _child(main, argv: list[str], folder: str, outputs: list[int]) -> None:  # type: ignore[no-untyped-def]
    """Be the command; never return."""
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in zip((nothing, *outputs), (0, 1, 2), strict=True):
            os.dup2(source, target)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.argv = ["vitexp", *argv]
        code = _visit(argv[1:]) if argv[:1] == ["dashboard"] else main(argv)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _visit(words: list[str]) -> int:
    """Print every page of the dashboard; 1 if one is missing or the index fails."""
    import re
    from threading import Thread
    from urllib.error import HTTPError
    from urllib.request import urlopen

    from vitexp.config.compose import compose
    from vitexp.verb.dashboard import HOST, make_server

    server = make_server(Path(compose(words).outputs), 0)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://{HOST}:{server.server_port}"
    with urlopen(f"{address}/") as answer:
        index = answer.read().decode()
    print(index)
    for link in re.findall(r'href="(/run/[^"]*)"', index):
        try:
            with urlopen(address + link) as answer:
                print(answer.read().decode())
        except HTTPError as error:
            print(error.read().decode())
            if error.code != 500:
                return 1
    return 0


def _watch(pid: int, start: float) -> tuple[int, float, int]:
    """Exit code, seconds and most memory of a fork; it is killed when it is past its time or its memory."""
    idle = peak = _resident(os.getpid())
    while True:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            waited = time.monotonic() - start
            seconds = waited if waited >= _WALL_S else usage.ru_utime + usage.ru_stime
            return os.waitstatus_to_exitcode(status), seconds, max(peak, usage.ru_maxrss * 1024) - idle
        peak = max(peak, _resident(pid))
        if time.monotonic() - start >= _WALL_S or peak - idle >= MAX_BYTES:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(_TICK_S)


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _read(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(descriptor, "rb") as file:
        return file.read().decode("utf-8", "backslashreplace")


if __name__ == "__main__":
    _serve()
