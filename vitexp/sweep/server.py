"""A process that has imported torch once and forks each job of a sweep: a start costs milliseconds instead of seconds.

Safe because nothing but imports has happened when it forks: no tensor, no thread, no CUDA context; each child sets its
devices and threads before its first operation. It runs in a session of its own, so that Ctrl-C reaches the sweep alone,
which passes it on. Lines of JSON come in on standard input and go out on standard output:

    {"start": folder, "slot": 0, "threads": 2, "devices": "0"}
    {"signal": 15, "slot": 0}

and out come {"slot": 0, "pid": 17} and at the end {"slot": 0, "code": 0}, where `code` is the exit code, or minus the
signal that ended the job. Where input ends, the sweep is gone: every job is asked to save and stop. Where a process
cannot be forked safely (other systems than Linux), jobs are started afresh.
"""

import atexit
import gc
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn, TextIO

from vitexp.machine.rank import end_with_parent
from vitexp.sweep.job import run_job

_POLL_S = 0.05
_JOB = "vitexp.sweep.job"


class Server:
    """The jobs that run, by slot."""

    def __init__(self, *, replies: TextIO, forks: bool) -> None:
        self.replies = replies
        self.forks = forks
        self.running: dict[int, int] = {}
        self._asked: set[int] = set()

    def serve(self, commands: int) -> dict[str, Any] | None:
        """Answer until input ends and the last job with it; in a forked child, return what to run."""
        buffer, is_open = b"", True
        while is_open or self.running:
            if select.select([commands] if is_open else [], [], [], _POLL_S)[0]:
                chunk = os.read(commands, 1 << 16)
                is_open = bool(chunk)
                *lines, buffer = (buffer + chunk).split(b"\n")
                job = next(filter(None, (self._obey(json.loads(line)) for line in lines)), None)
                if job is not None:
                    return job
            if not is_open:
                self._stop_all()
            self._reap()
        return None

    def _obey(self, command: dict[str, Any]) -> dict[str, Any] | None:
        if "signal" in command:
            if command["slot"] in self.running:
                os.kill(self.running[command["slot"]], command["signal"])
            return None
        pid = os.fork() if self.forks else _start_afresh(command)
        if pid == 0:
            return command
        self.running[command["slot"]] = pid
        self._reply(slot=command["slot"], pid=pid)
        return None

    def _reap(self) -> None:
        for slot, pid in list(self.running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self.running[slot]
                self._reply(slot=slot, code=os.waitstatus_to_exitcode(status))

    def _stop_all(self) -> None:
        """Ask each job once: a second time would mean at once."""
        for slot in self.running.keys() - self._asked:
            os.kill(self.running[slot], signal.SIGTERM)
            self._asked.add(slot)

    def _reply(self, **content: int) -> None:
        try:
            self.replies.write(json.dumps(content) + "\n")
            self.replies.flush()
        except BrokenPipeError:
            pass  # the sweep is gone, and reads no more


def main(modules: Sequence[str]) -> NoReturn:
    """Import, serve, and end: as the server, or as the job that this process has become."""
    # What is printed while importing must not get between the replies.
    replies, commands = os.fdopen(os.dup(1), "w"), os.dup(0)
    os.dup2(2, 1)
    forks = sys.platform == "linux"
    if forks:
        for name in modules:
            import_module(name)
        gc.freeze()  # so that no collection in a child touches, and thereby copies, what they share
    own_pid = os.getpid()
    job = Server(replies=replies, forks=forks).serve(commands)
    if job is None:
        _end(0)
    code = 1
    try:
        os.close(commands)
        replies.close()
        _become(job, server=own_pid)
        code = run_job(Path(job["start"]))
    except BaseException:  # noqa: BLE001  (a forked process must never return into the server)
        traceback.print_exc()
    _end(code)


def _end(code: int) -> NoReturn:
    """Leave as forked processes do: taking every module down would copy all that is shared, for seconds."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _become(job: dict[str, Any], *, server: int) -> None:
    """Make the forked process that of a job: its own session, output, devices, threads; it ends with the server."""
    os.setsid()
    end_with_parent()
    if os.getppid() != server:  # it died before it could be watched
        sys.exit(128 + signal.SIGTERM)
    with open(os.devnull) as nothing, open(Path(job["start"]) / "output.txt", "a") as output:
        for source, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(source.fileno(), target)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115  (the job's as long as it lives)
    os.environ.update(_environment(job))
    # What Lightning starts again for each further device of the job.
    sys.argv = [_JOB, job["start"]]
    sys.modules["__main__"].__spec__ = find_spec(_JOB)
    if job["threads"] is not None and "torch" in sys.modules:  # it has read the environment by now
        sys.modules["torch"].set_num_threads(job["threads"])


def _start_afresh(job: dict[str, Any]) -> int:
    with (Path(job["start"]) / "output.txt").open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", _JOB, job["start"]],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **_environment(job)},
            start_new_session=True,
        )
    return process.pid


def _environment(job: dict[str, Any]) -> dict[str, str]:
    threads = {} if job["threads"] is None else {"OMP_NUM_THREADS": str(job["threads"])}
    devices = {} if job["devices"] is None else {"CUDA_VISIBLE_DEVICES": job["devices"]}
    return {**threads, **devices}


if __name__ == "__main__":
    main(sys.argv[1:])
