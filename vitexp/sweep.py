"""`vitexp -m`: Hydra's multirun with our run folders, a table at the end, and a failed job that ends only itself."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console

from vitexp.command import Command, call
from vitexp.config import canonical, compose, conf_dir, is_sweep, parse, sweep_values
from vitexp.errors import ConfigError, SweepError, VitexpError
from vitexp.pages import write_comparison
from vitexp.report.console import make_console
from vitexp.report.plot_sweep import against, analyses_against
from vitexp.report.screen import say
from vitexp.report.table import sweep_table

# Where Hydra puts the jobs, and its own logging off: ours is in each run folder.
_HYDRA = (
    "hydra.sweep.dir='${outputs}/sweeps/${now:%Y-%m-%d}_${now:%H%M%S}'",
    "hydra.sweep.subdir='${hydra.job.num}-${folder_name:${hydra.job.override_dirname}}'",
    "hydra.output_subdir=null",
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
    "hydra.job.chdir=false",
)


def sweep(verb: str, words: Sequence[str], argv: Sequence[str], config_dirs: Sequence[str]) -> int:
    """Run `verb` for every combination; every value is checked before the first job starts.

    Raises:
        ConfigError: a mistake in any of the values.
        SweepError: at least one job failed; the others finished and the table says which.
    """
    check_all(words, config_dirs)
    OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
    rows: list[dict[str, Any]] = []
    folder: list[Path] = []

    def job(cfg: DictConfig) -> float | None:
        state = HydraConfig.get()
        with open_dict(cfg):
            cfg.chosen = {key: value for key, value in state.runtime.choices.items() if not key.startswith("hydra/")}
        overrides = list(state.overrides.task)
        folder[:] = [Path(state.sweep.dir)]
        row: dict[str, Any] = {"overrides": _swept(overrides, words), "state": "done", "metrics": {}}
        rows.append(row)
        try:
            row["metrics"] = call(verb, Command(cfg, overrides, argv, folder=Path(state.runtime.output_dir)))
        except VitexpError as error:
            row.update(state="failed", reason=str(error))
            Console(stderr=True).print(f"job {state.job.num} failed: {error}", style="red", markup=False)
        return row["metrics"].get("test/top1")

    kept = [o.key_or_group for o in map(parse, words) if not is_sweep(o)]
    extra = [*(f"--config-dir={path}" for path in config_dirs[:1])]
    extra += [f"hydra.job.config.override_dirname.exclude_keys=[{','.join(kept)}]"]
    sys.argv = ["vitexp", "--multirun", *extra, *_HYDRA, *(parse(word).input_line or word for word in words)]
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(job)()
    make_console().print(sweep_table(rows))
    write_table(rows, folder[0] / "sweep.csv")
    against(rows, folder[0] / "sweep.png", title=folder[0].name)
    analyses_against(rows, folder[0], title=folder[0].name)
    if verb == "train":
        say(f"{write_comparison(str(folder[0]), folder[0].parent)} compares the runs", quiet=False)
    failed = [row for row in rows if row["state"] != "done"]
    if failed:
        raise SweepError(f"{len(failed)} of {len(rows)} jobs failed; the table and {folder[0]}/sweep.csv say which")
    return 0


def check_all(words: Sequence[str], config_dirs: Sequence[str]) -> None:
    """Compose the first combination, then each other value of each swept key beside it."""
    parsed = [parse(word) for word in words]
    choices = [sweep_values(o) if is_sweep(o) else [canonical(word)] for o, word in zip(parsed, words, strict=True)]
    first = [values[0] for values in choices if values]
    compose(first, config_dirs=config_dirs)
    for values in choices:
        for value in values[1:]:
            compose([*(word for word in first if word != values[0]), value], config_dirs=config_dirs)
    if not any(is_sweep(override) for override in parsed):
        raise ConfigError("-m needs a key with several values, as in lr=1e-3,3e-4 or seed=0,1,2")


def folder_name(overrides: str) -> str:
    """The swept overrides as a folder name: last parts of the keys, no separators that a path or a shell minds."""
    parts = [part.split("=", 1) for part in overrides.split(",") if "=" in part]
    text = ",".join(f"{key.rsplit('.', 1)[-1]}={value}" for key, value in parts)
    return "".join(char if char.isalnum() or char in "=,._+-" else "_" for char in text)[:120] or "job"


def write_table(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """One row a job: overrides, state, metrics."""
    metrics = sorted({name for row in rows for name in row["metrics"]})
    keys = sorted({key for row in rows for key in row["overrides"]})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*keys, "state", *metrics])
        writer.writeheader()
        for row in rows:
            writer.writerow({**row["overrides"], "state": row["state"], **row["metrics"]})


def _swept(overrides: Sequence[str], words: Sequence[str]) -> dict[str, str]:
    """The keys of this job that differ between jobs."""
    swept = {parse(word).key_or_group for word in words if is_sweep(parse(word))}
    pairs = [override.partition("=") for override in overrides]
    return {key: value for key, _, value in pairs if key in swept}
