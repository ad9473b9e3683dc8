"""`benchmark what=runner`: what a whole run costs beside a bare PyTorch loop over the same batches.

The run is the command's own, with its data path, Lightning, callbacks and loggers, in a temporary folder. The bare
loop has the same model, loss, clipping and optimizer, and takes ready batches out of a list. They take turns; the time
of a run is that from the end of its first step to the end of its last, validation left out (`what=start` has the rest).
"""

import copy
import itertools
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from time import perf_counter

from omegaconf import DictConfig
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from vitexp import build
from vitexp.benchmark.place import autocast, device_of, place_name, waiting
from vitexp.benchmark.report import TIMES, Report, milliseconds
from vitexp.benchmark.timing import Timing, summary
from vitexp.config.command import Command
from vitexp.optim.group import parameter_groups
from vitexp.run.fit import fit
from vitexp.run.folder import create
from vitexp.verb.prepare import prepare

# Batches that the bare loop goes round; more than a processor's cache holds of small images.
_HELD = 16


def time_runner(command: Command) -> Report:
    """Time the run that the command describes, `benchmark.repeats` times, each beside as many bare steps."""
    cfg = command.cfg
    data = build.build_data(cfg)
    data.setup("fit")
    batches = list(itertools.islice(data.train_dataloader(), _HELD))
    rounds: dict[str, list[float]] = {"bare": [], "vitexp": []}
    waits: list[float] = []
    for index in range(1 + cfg.benchmark.repeats):
        clock = Clock()
        _run(cfg, clock)
        bare = bare_seconds(cfg, batches, clock.steps)
        if index:
            rounds["bare"].append(bare)
            rounds["vitexp"].append(clock.seconds / clock.steps)
            waits.append(clock.waiting / clock.seconds)
    timings = summary(rounds)
    share = 1 - timings["vitexp"].ratio
    size = f"{cfg.data.image_size} × {cfg.data.image_size}, batch {cfg.data.batch_size}"
    title = f"{cfg.chosen.model}, {cfg.chosen.data}, {size}, {place_name(cfg)}"
    ratios = {
        "runner over bare": 1 / timings["vitexp"].ratio,
        "runner share": share,
        "between steps": sorted(waits)[len(waits) // 2],
    }
    columns = ("training step", *TIMES, "× bare", "of it Lightning, logs, data", "of it between steps")
    return Report(title, columns, [_row(name, timing, ratios) for name, timing in timings.items()], ratios)


class Clock(Callback):
    """Seconds and number of steps after the first one, without validation; what of it was spent between steps."""

    def __init__(self) -> None:
        self.steps = 0
        self.seconds = self.waiting = 0.0
        self._ended: float | None = None
        self._paused = self._pause = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """The batch is there."""
        if self._ended is not None:
            self.waiting += perf_counter() - self._ended - self._pause

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """A step more, with all that came before it."""
        now = perf_counter()
        if self._ended is not None:
            self.steps += 1
            self.seconds += now - self._ended - self._pause
        self._ended, self._pause = now, 0.0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._paused = perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock again."""
        self._pause = perf_counter() - self._paused


def bare_seconds(cfg: DictConfig, batches: list[tuple[Tensor, Tensor]], steps: int) -> float:
    """Seconds of one training step as a plain loop has it, over `steps` steps after a first one."""
    device = device_of(cfg)
    model = build.switches(cfg, build.build_model(cfg)).train().to(device)
    batches = [(images.to(device), labels.to(device)) for images, labels in batches]
    task = build.build_task(cfg, model)
    settings = cfg.optimizer
    optimizer = build.make(settings)(parameter_groups(model, lr=settings.lr, weight_decay=settings.weight_decay))
    start = 0.0
    for index in range(steps + 1):
        images, labels = batches[index % len(batches)]
        with autocast(cfg):
            loss = task.criterion(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        if cfg.trainer.clip:
            nn.utils.clip_grad_norm_(model.parameters(), cfg.trainer.clip)
        optimizer.step()
        if index in (0, steps):
            waiting(device)()
        start = perf_counter() if index == 0 else start
    return (perf_counter() - start) / steps


def _run(cfg: DictConfig, clock: Clock) -> None:
    """One whole run in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(_Terminal()):
        own = copy.deepcopy(cfg)
        own.outputs = folder
        if own.logger.get("choice") == "auto":  # no run of a benchmark belongs on a server
            own.logger.choice = "tensorboard"
        run = create(own, argv=["benchmark"], overrides=[], folder=Path(folder) / "run")
        data = build.build_data(own)
        training = prepare(own, data, build.build_model(own))
        try:
            fit(training, run, watchers=[clock])
        finally:
            run.release()


class _Terminal(StringIO):
    """A terminal that nobody sees: the live line is drawn, as it would be."""

    def isatty(self) -> bool:
        return True


def _row(name: str, timing: Timing, ratios: dict[str, float]) -> tuple[object, ...]:
    ours = name == "vitexp"
    parts = [f"{100 * ratios[key]:.1f} %" if ours else None for key in ("runner share", "between steps")]
    return (name, *milliseconds(timing), round(1 / timing.ratio, 3), *parts)
