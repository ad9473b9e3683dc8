"""The processes that read data ahead: what each has in hand, whether one is stopped, and what the end of one means."""

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from weakref import WeakSet

from vitexp.errors import ResourceError

WATCH_S = 10.0  # between two looks at the workers
# What torch says, in a RuntimeError that may rise at any line of the process which trains.
_LOST = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? (?P<pid>\d+)[^)]*\) (?:is killed by signal: (?P<signal>[^.]+)|exited unexpect)"
)
_MEMORY = "most likely for memory; lower data.num_workers or data.batch_size"
_EITHER = f"by a crash, or {_MEMORY}"
# The system's words for a signal -> the likely reason, and what to do.
_REASONS = {
    "Killed": _MEMORY,
    "Bus error": "most likely because /dev/shm is full or the file shrank while it was read; lower data.num_workers",
    "Terminated": "by whoever sent it; `vitexp resume` continues the run",
}
_CRASH = "a crash of the code that reads; `vitexp data check` reads each file alone, data.num_workers=0 shows where"


class Hands:
    """The sample that each worker of a loader reads at the moment, in memory that all processes share.

    Args:
        num_workers: processes.
        name: what to call the sample at a position.
    """

    def __init__(self, num_workers: int, name: Callable[[int], str]) -> None:
        self.name = name
        self._table = RawArray("q", 2 * num_workers)  # a process and a position each
        _all.add(self)

    def take(self, worker: int, position: int) -> None:
        """Say in a worker what it reads from now on."""
        self._table[2 * worker], self._table[2 * worker + 1] = os.getpid(), position

    def of(self, process: int) -> str | None:
        """The sample that a process has in hand; None if it is no worker of these, or has read nothing."""
        pairs = dict(zip(self._table[::2], self._table[1::2], strict=True))
        return self.name(pairs[process]) if process in pairs else None

    def lost(self) -> ResourceError | None:
        """The error about a worker that is gone; None where all are there."""
        known = [process for process in self._table[::2] if process]
        gone = [process for process in known if process in _ended or _state(process)[0] in "ZX"]
        return _explain(gone[0], "") if gone else None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """End a worker that a signal has stopped and none lets go on.

        The process that trains would wait for it without end, where no time limit holds: for the handle of a batch.
        """
        over = threading.Event()
        if len(self._table):
            threading.Thread(target=self._watch, args=(over,), daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def _watch(self, over: threading.Event) -> None:
        before: set[int] = set()
        while not over.wait(WATCH_S):
            found = {process for process in self._table[::2] if process and _is_stopped_child(process)}
            for process in found & before:  # twice in a row: what Ctrl-Z stops goes on with the process that looks
                _ended.add(process)
                os.kill(process, signal.SIGKILL)  # torch says then, in the process that trains, that a worker is lost
            before = found


_all: WeakSet[Hands] = WeakSet()
_ended: set[int] = set()


def lost_worker(error: BaseException) -> ResourceError | None:
    """The error about a worker that is gone, in place of torch's; None where the error is about something else."""
    found = _LOST.search(str(error)) if isinstance(error, RuntimeError) else None
    if found is None:
        return None
    return _explain(int(found["pid"]), (found["signal"] or "").strip())


def _explain(process: int, word: str) -> ResourceError:
    """The error about a worker that ended by a signal in the system's words, or in a way that is not known."""
    names = [name for hands in _all if (name := hands.of(process)) is not None]
    held = f" with {names[0]} in hand" if names else ""
    if process in _ended:
        return ResourceError(
            f"data worker {process} was stopped by a signal{held}, and did not go on within {WATCH_S:g} seconds;"
            " `vitexp resume` continues the run"
        )
    how = f"was killed by signal {word}" if word else "is gone"
    return ResourceError(f"data worker {process} {how}{held}, {_REASONS.get(word, _CRASH) if word else _EITHER}")


def _is_stopped_child(process: int) -> bool:
    """Whether a process is this one's child and stopped."""
    state, parent = _state(process)
    return state == "T" and parent == os.getpid()


def _state(process: int) -> tuple[str, int]:
    """The state of a process in a letter, such as T for stopped, and its parent; Z and 0 where it is gone."""
    if sys.platform != "linux":
        return "R", 0
    try:
        state, parent = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return "Z", 0
    return state, int(parent)
