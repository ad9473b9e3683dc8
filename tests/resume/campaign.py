"""Kill runs at random and count what differs afterwards: `python tests/resume/campaign.py kills|writes|signals|disk`.

One process imports torch once and forks a child for each session, which is `vitexp train` or `vitexp resume` from the
checked configuration on. `--seed` makes the times of the kills repeat as far as the machine does.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from tests.resume.toy import FILES, MEMORY, TOY, differing, images, in_place, outcome, session, steps
from vitexp.checkpoint.safe_io import LAST, SafeCheckpointIO, newest
from vitexp.cli import main
from vitexp.errors import ResourceError
from vitexp.files.folder import PART
from vitexp.run.folder import all_runs

# Six epochs of four steps: 24 places to go on from, 23 of them before the end.
LONG = [*TOY, "epochs=6"]
EPOCHS, STEPS = 6, 4
SETTINGS = {
    "memory": MEMORY,
    "memory, accumulation, EMA, mixup": [*MEMORY, "trainer.accumulate=2", "trainer.ema=0.9", "augment=strong"],
    "files, workers 0 and 2, EMA": [*FILES, "trainer.ema=0.9"],
    "files, workers 0 and 2, accumulation": [*FILES, "trainer.accumulate=2"],
}


class Strike(Callback):
    """SIGKILL this process some seconds after training has begun in it, or after now."""

    def __init__(self, seconds: float, *, now: bool) -> None:
        self.timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
        self.now = now
        if now:
            self.timer.start()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        if not self.now:
            self.timer.start()


def forked(work: Callable[[], Any], *, meanwhile: Callable[[int], Any] = lambda child: None) -> int:
    """Do `work` in a child process; its exit code, negative for the signal that killed it."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            torch.set_num_threads(1)
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            if not os.environ.get("CAMPAIGN_LOUD"):
                os.dup2(silent, 2)
            result = work()
            code = result if isinstance(result, int) else 0
        finally:
            os._exit(code)
    meanwhile(child)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def kills(runs: int, most: int, draw: random.Random, root: Path) -> int:
    """P2: SIGKILL at random times of the training, and of what comes before it, up to `most` in a run."""
    expected, seconds = {}, {}
    for number, (name, words) in enumerate(SETTINGS.items()):
        place = root / f"whole{number}"
        assert forked(lambda p=place, w=words: in_place(p, lambda: session([*LONG, *w]))) == 1, name
        seconds[name] = all_runs(place / "outputs")[-1].record["fit_seconds"]
        expected[name] = outcome(place)
    killed, wrong, positions = 0, 0, Counter[tuple[int, int]]()
    for number in range(runs):
        name = list(SETTINGS)[number % len(SETTINGS)]
        place = root / f"run{number}"
        done = _one_run(SETTINGS[name], place, most, seconds[name], draw, positions)
        killed += done
        parts = differing(expected[name], outcome(place))
        rows = steps(place) == list(range(1, EPOCHS * STEPS + 1))
        if parts or not rows:
            wrong += 1
            print(f"MISMATCH in run {number} ({name}): {parts or 'rows of metrics.csv'}", flush=True)
        shutil.rmtree(place)
    print(
        f"kills {killed}, runs {runs}, mismatches {wrong}; resumed from {len(positions)} different places", flush=True
    )
    return wrong


def _one_run(
    words: Sequence[str], place: Path, most: int, seconds: float, draw: random.Random, positions: Counter[Any]
) -> int:
    place.mkdir()
    killed = 0
    while True:
        runs = all_runs(place / "outputs")
        if runs and (found := newest(runs[-1].checkpoints)) is not None:
            positions[found[1]["step"], found[1]["epoch"]] += 1
        workers = [f"data.num_workers={draw.choice([0, 2])}"] if "data=folder" in words else []
        mine = [*LONG, *words, *workers, f"trainer.checkpoint_seconds={draw.choice(['0', '0.03', '0.1'])}"]
        now = draw.random() < 0.2
        after = draw.uniform(0.05, 0.5) if now else draw.uniform(0, 0.5 * seconds)

        def work(words: list[str] = mine, now: bool = now, after: float = after, last: bool = killed == most) -> int:
            return int(session(words, *([] if last else [Strike(after, now=now)])))

        code = in_place(place, lambda w=work: forked(w))
        if code == -signal.SIGKILL:
            killed += 1
        elif code == 1:
            return killed
        else:
            raise SystemExit(f"a session ended with {code}; CAMPAIGN_LOUD=1 shows why")


def writes(runs: int, most: int, draw: random.Random, root: Path) -> int:
    """P4: SIGKILL while a checkpoint is being written, TMPDIR on another file system where there is one."""
    elsewhere = Path("/dev/shm")
    other = elsewhere.is_dir() and os.stat(elsewhere).st_dev != os.stat(root).st_dev
    if other:
        tempfile.tempdir = str(elsewhere)
        os.environ["TMPDIR"] = str(elsewhere)
    before = {path.name for path in elsewhere.iterdir()} if other else set()
    inside, bad = 0, 0

    def parts() -> bool:
        return any(name.startswith(PART) for name in os.listdir(root))

    _save(root, 0)
    while inside < runs:
        step = newest(root)[1]["step"]

        def work(step: int = step) -> None:
            for number in range(step + 1, step + 50):
                _save(root, number)

        def strike(child: int) -> None:
            deadline = time.monotonic() + 10
            for _ in range(draw.randint(1, 3)):
                while not parts() and time.monotonic() < deadline:
                    pass
                while parts() and time.monotonic() < deadline and draw.random() < 0.9:
                    time.sleep(draw.uniform(0, 0.003))
            os.kill(child, signal.SIGKILL)

        assert forked(work, meanwhile=strike) == -signal.SIGKILL
        inside += parts()
        path, entry = newest(root)
        content = SafeCheckpointIO().load_checkpoint(path)
        whole = entry["step"] >= step and bool((content["state_dict"]["w"] == float(entry["step"])).all())
        bad += not whole
    left = {path.name for path in elsewhere.iterdir()} - before if other else set()
    where = f"TMPDIR on another file system, {len(left)} files left there" if other else "TMPDIR on the same one"
    print(f"kills inside a write {inside}, unreadable {bad}; {where}", flush=True)
    return bad


def _save(folder: Path, step: int) -> None:
    """A checkpoint of 16 MB whose content says its step."""
    position = {"step": step, "epoch": step, "batch": 0}
    content = {"state_dict": {"w": torch.full((4_000_000,), float(step))}, "vitexp": position}
    SafeCheckpointIO().save_checkpoint(content, folder / LAST)


def disk(runs: int, most: int, draw: random.Random, root: Path) -> int:
    """Saves that run into a limit of the size of files, and those that fill a small disk where one can be mounted."""
    bad = 0
    _save(root, 1)
    for _ in range(runs):
        limit = draw.randint(1, 16_000_000)

        def work(limit: int = limit) -> int:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                _save(root, 2)
            except ResourceError as error:
                return error.exit_code
            return 0

        code = forked(work)
        path, entry = newest(root)
        content = SafeCheckpointIO().load_checkpoint(path)
        whole = code == 6 and entry["step"] == 1 and bool((content["state_dict"]["w"] == 1.0).all())
        bad += not whole
    print(f"saves that hit a limit {runs}, unreadable or unreported {bad}", flush=True)
    small = root / "small"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=40m none '{small}' 2>/dev/null") == 0:  # the path is our own
        try:
            bad += _fill(small)
        finally:
            os.system(f"umount '{small}'")
    else:
        print("no disk could be mounted here", flush=True)
    return bad


def _fill(small: Path) -> int:
    _save(small, 1)
    (small / "ballast").write_bytes(b"x" * 12_000_000)
    refused = 0
    for step in (2, 3):
        try:
            _save(small, step)
        except ResourceError:
            refused += 1
    path, entry = newest(small)
    SafeCheckpointIO().load_checkpoint(path)
    good = refused == 2 and entry["step"] == 1
    print(f"saves on a full disk 2, refused {refused}, the one before still loads: {good}", flush=True)
    return int(not good)


def signals(runs: int, most: int, draw: random.Random, root: Path) -> int:
    """P5: SIGTERM, SIGINT or SLURM's SIGUSR1 at random times through the whole command, then resumed."""
    words = [*LONG, *MEMORY, "epochs=40", "trainer.checkpoint_seconds=60"]
    start = time.perf_counter()
    assert in_place(root / "whole", lambda: forked(lambda: main(words))) == 0
    seconds, expected = time.perf_counter() - start, outcome(root / "whole")
    bad, delays = 0, []
    for number in range(runs):
        place, sent = root / f"run{number}", [0.0]
        signum = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)[number % 3]

        def strike(child: int, place: Path = place, sent: list[float] = sent, signum: int = signum) -> None:
            while not list(place.glob("outputs/*/*/metrics.csv")):
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.5 * seconds))
            sent[0] = time.perf_counter()
            os.kill(child, signum)

        code = in_place(place, lambda: forked(lambda: main(words), meanwhile=strike))
        delays.append(time.perf_counter() - sent[0])
        (run,) = all_runs(place / "outputs")
        log = (run.path / "log.txt").read_text()[-4000:]
        # `done` where the signal came while the page of the finished run was written
        stopped = code == 128 + signum and run.state in ("interrupted", "done")
        finished = code == 0 and run.state == "done"  # the signal came when all was over
        again = in_place(place, lambda: forked(lambda: main(["resume", "quiet=true"])))
        parts = differing(expected, outcome(place))
        if not (stopped or finished) or again != 0 or parts:
            bad += 1
            print(
                f"run {number}: {signum!r} gave {code}, state {run.state}, then {again}; differing: {parts}\n{log}",
                flush=True,
            )
    delays.sort()
    slow = delays[int(0.95 * (len(delays) - 1))]
    print(f"signals {runs}, wrong {bad}; from signal to exit p95 {slow:.2f} s, longest {delays[-1]:.2f} s", flush=True)
    return bad


def run(argv: Sequence[str]) -> int:
    """One campaign in a folder of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["kills", "writes", "disk", "signals"])
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--most", type=int, default=6, help="kills in one run")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        images(root / "images")
        FILES[1] = f"data.root={root}/images"
        for words in SETTINGS.values():
            words[:] = [FILES[1] if word.startswith("data.root=") else word for word in words]
        work = {"kills": kills, "writes": writes, "disk": disk, "signals": signals}[options.what]
        bad = work(options.runs, options.most, random.Random(options.seed), root)
    print(f"{time.perf_counter() - start:.0f} s", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
