"""The sweep at work: hand jobs to free slots, note how each ends, pass Ctrl-C on, keep the screen up to date."""

import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from vitexp.errors import Interrupted
from vitexp.machine.signals import SIGNALS
from vitexp.report.sweep_screen import Line, SweepScreen
from vitexp.sweep.folder import FAILED, OUTPUT, Job
from vitexp.sweep.job import BUSY
from vitexp.sweep.progress import progress
from vitexp.sweep.slots import Slots

_TICK_S = 0.2


class Source(Protocol):
    """The source of jobs: a list, or a study that thinks of the next one."""

    def next(self) -> Job | None:
        """A job to start now, if any."""

    def ended(self, job: Job) -> None:
        """It is over, and its record says how."""

    def watch(self, running: Sequence[Job]) -> Iterable[Job]:
        """Those of the running jobs that are not worth going on with."""

    @property
    def remaining(self) -> int:
        """Jobs that are still to be started."""


class Listed:
    """Jobs known in advance. One that another process still works on waits for its turn."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._waiting = list(jobs)

    def next(self) -> Job | None:
        """The first that nobody works on."""
        for job in self._waiting:
            if not job.is_busy():
                self._waiting.remove(job)
                return job
        return None

    def ended(self, job: Job) -> None:
        """Do nothing: no later job depends on the end of one."""

    def watch(self, running: Sequence[Job]) -> Iterable[Job]:
        """All are worth it."""
        return ()

    @property
    def remaining(self) -> int:
        """Jobs not yet started."""
        return len(self._waiting)


class Stop:
    """Signals that ask the sweep to stop, noted for the loop."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._pending: list[int] = []

    def note(self, signum: int, frame: FrameType | None) -> None:
        """The handler of signals: remember that one came."""
        self.signum = self.signum or signum
        self._pending.append(signum)

    def take(self) -> list[int]:
        """Signals since the last call."""
        taken, self._pending = self._pending, []
        return taken


@contextmanager
def noting_signals() -> Iterator[Stop]:
    """Note SIGINT, SIGTERM and SIGUSR1 instead of unwinding."""
    stop = Stop()
    before = {signum: signal.signal(signum, stop.note) for signum in SIGNALS}
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def run_all(source: Source, slots: Slots, screen: SweepScreen, finished: Callable[[], Sequence[Job]]) -> None:
    """Run until the source has no more; the records in the jobs' folders are the result.

    Args:
        source: of jobs.
        slots: where they run.
        screen: that shows them.
        finished: all jobs of the sweep that are over, for the screen.

    Raises:
        Interrupted: after every job has saved itself and stopped.
    """
    with noting_signals() as stop, screen:
        loop = _Loop(source, slots, screen, stop)
        while loop.fill():
            loop.collect()
            loop.give_up()
            loop.pass_on()
            screen.draw(loop.lines(), finished(), source.remaining)
    if stop.signum is not None:
        raise Interrupted(stop.signum)


class _Loop:
    """The steps of one turn."""

    def __init__(self, source: Source, slots: Slots, screen: SweepScreen, stop: Stop) -> None:
        self.source, self.slots, self.screen, self.stop = source, slots, screen, stop
        self._pruned: set[int] = set()

    def fill(self) -> bool:
        """Start jobs in free slots; False if nothing runs and nothing will."""
        if self.stop.signum is not None:
            return bool(self.slots.running)
        while self.slots.free and (job := self.source.next()) is not None:
            self.screen.say(f"{job.label}: {'continues' if job.record['attempts'] else 'starts'}")
            job.record["state"] = "running"
            job.folder.require(OUTPUT)  # which the process of the job opens itself
            self.slots.start(job)
        return bool(self.slots.running or self.source.remaining)

    def collect(self) -> None:
        """Note the jobs that have ended, waiting a moment for one."""
        for job, code in self.slots.poll(_TICK_S):
            settle(job, code, pruned=job.number in self._pruned)
            self.screen.say(_ending(job))
            self.source.ended(job)

    def give_up(self) -> None:
        """Stop the jobs that the source thinks are not worth it."""
        for job in self.source.watch(list(self.slots.running.values())):
            if job.number not in self._pruned:
                self._pruned.add(job.number)
                self.slots.signal(job, signal.SIGTERM)

    def pass_on(self) -> None:
        """Send the signals that came to every job."""
        for signum in self.stop.take():
            for job in self.slots.running.values():
                self.slots.signal(job, signum)
            if self.slots.running:
                self.screen.say(f"stopping {len(self.slots.running)} jobs at their next safe points (again: at once)")

    def lines(self) -> list[Line]:
        """The running jobs, for the screen."""
        now = time.time()
        return [progress(job, now) for job in self.slots.running.values()] if self.screen.is_live else []


def settle(job: Job, code: int, *, pruned: bool = False) -> None:
    """Read how a job ended, and write what it could not write itself."""
    job.reload()
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (out of memory?)" if -code == signal.SIGKILL else ""
        job.update(state="killed", exit_code=128 - code, reason=f"killed by {name}{hint}")
    elif job.state in ("running", "waiting") and code != BUSY:
        job.update(state="failed", exit_code=code, reason=f"ended with exit code {code}; see {job.path}/output.txt")
    elif pruned and job.state == "interrupted":
        job.update(state="pruned", exit_code=0, reason="pruned: others were better at this point")


def _ending(job: Job) -> str:
    if job.state in FAILED:
        return f"{job.label}: {job.state}, {job.record['reason']}"
    return f"{job.label}: {job.state} after {job.record['seconds']:.1f} s"
