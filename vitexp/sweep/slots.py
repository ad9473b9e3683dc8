"""Jobs side by side on this machine: one a GPU, or the processor's threads shared out among them."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import vitexp
from vitexp.errors import ConfigError, ResourceError
from vitexp.machine.cores import usable_cores
from vitexp.machine.memory import free_memory
from vitexp.sweep.folder import Job

# What a job needs at the least: `slots=auto` starts no more than fit into the memory that is free.
_JOB_BYTES = 2 * 2**30
# What each verb imports; the server has it ready for its jobs.
_MODULES = ("vitexp.verb.resume", "vitexp.report.plot_curves")


@dataclass(frozen=True)
class Share:
    """The threads and GPUs of a slot; None is all that there are."""

    threads: int | None
    devices: str | None


def shares(slots: Any, *, jobs: int, devices: Any, strategy: str) -> list[Share]:
    """One share for each slot.

    Args:
        slots: `slots=` as given: auto or a number.
        jobs: how many there are to run.
        devices: `trainer.devices` of the jobs; a job on several devices has them all.
        strategy: `trainer.strategy` of the jobs.

    Raises:
        ConfigError: `slots=` is neither.
    """
    check_slots(slots)
    cores, cards = usable_cores(), visible_devices()
    alone = strategy != "auto" or devices not in ("auto", 1)
    if slots == "auto":
        slots = 1 if alone else len(cards) or max(1, min(cores, free_memory() // _JOB_BYTES))
    count = max(1, min(slots, jobs))
    if count == 1:
        return [Share(None, None if alone or len(cards) < 2 else cards[0])]
    # One core each at the least; the environment's own limit holds for every job.
    threads = max(1, min(cores // count, int(os.environ.get("OMP_NUM_THREADS") or cores)))
    return [Share(threads, None if alone or not cards else cards[index % len(cards)]) for index in range(count)]


def check_slots(slots: Any) -> None:
    """Raise ConfigError unless `slots=` is auto or a number from 1."""
    if slots != "auto" and (not isinstance(slots, int) or isinstance(slots, bool) or slots < 1):
        raise ConfigError(f"slots={slots} is not known; use auto or the number of jobs side by side, as in slots=4")


def visible_devices() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; found without CUDA."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1")]
    driver = Path("/proc/driver/nvidia/gpus")
    return [str(index) for index, _ in enumerate(driver.iterdir())] if driver.is_dir() else []


def server_for(verb: str) -> list[str]:
    """The command of a server that has imported what the jobs of a verb need."""
    return [sys.executable, "-P", "-m", "vitexp.sweep.server", f"vitexp.verb.{verb}", *_MODULES]


class Slots:
    """A server of jobs and what runs there; `running` is job by slot."""

    def __init__(self, shares: Sequence[Share], *, server: Sequence[str]) -> None:
        """Start the command `server`, see `server_for`."""
        self._shares = shares
        self.running: dict[int, Job] = {}
        self._buffer = b""
        self._server = subprocess.Popen(
            server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), start_new_session=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the server; jobs that still run are asked to stop, and it waits for them."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()

    @property
    def free(self) -> int:
        """Slots without a job."""
        return len(self._shares) - len(self.running)

    def start(self, job: Job) -> None:
        """Run a job in a free slot."""
        slot = next(index for index in range(len(self._shares)) if index not in self.running)
        share = self._shares[slot]
        self.running[slot] = job
        self._send(start=str(job.path.resolve()), slot=slot, threads=share.threads, devices=share.devices)

    def signal(self, job: Job, signum: int) -> None:
        """Send a signal to the process of a job."""
        slot = next(slot for slot, other in self.running.items() if other is job)
        self._send(signal=int(signum), slot=slot)

    def poll(self, seconds: float) -> list[tuple[Job, int]]:
        """Jobs that have ended, each with its exit code (minus the signal that killed it); waits at most so long.

        Raises:
            ResourceError: the server is gone.
        """
        assert self._server.stdout is not None
        output = self._server.stdout.fileno()
        if not select.select([output], [], [], seconds)[0]:
            return []
        chunk = os.read(output, 1 << 16)
        if not chunk:
            raise ResourceError(
                "the process that starts the jobs has ended, for what is said above or for want of memory;"
                " the same command continues the sweep"
            )
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        replies = [json.loads(line) for line in lines]
        return [(self.running.pop(reply["slot"]), reply["code"]) for reply in replies if "code" in reply]

    def _send(self, **content: Any) -> None:
        assert self._server.stdin is not None
        try:
            self._server.stdin.write(json.dumps(content).encode() + b"\n")
            self._server.stdin.flush()
        except BrokenPipeError:
            pass  # poll says so


def environment() -> dict[str, str]:
    """This environment, in which a checkout that is not installed is found too."""
    root = Path(vitexp.__file__).resolve().parents[1]
    if "site-packages" in root.parts:
        return dict(os.environ)
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}
