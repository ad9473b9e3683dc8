"""Hostile run folders: each a change of a good one, by name; not a test itself.

A change gets the run folder and the folder `beside`, which stands outside of what the command may touch, and holds
`secret.txt` and a run `elsewhere`, both with the canary in them.
"""

import json
import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

SMALL = (
    *("data=fake", "data.sizes=[16,8,8]", "size=8", "bs=8", "epochs=1", "logger=none"),
    *("model.dim=16", "model.num_heads=2", "model.depth=2"),
)
CANARY = "canary7f3a9c"
Change = Callable[[Path, Path], None]
FILES = ("run.json", "metrics.csv", "rules.yaml", "config.yaml", "overrides.txt", "log.txt", "weights.safetensors")
WRITTEN = ("report.html", "predictions.csv", ".lock")
FOLDERS = ("plots", "checkpoints", "evaluations", "analysis")


def away(path: Path) -> Path:
    """The place of a file, free for something else."""
    if path.is_dir():
        path.rename(path.parent / "moved")
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def link(name: str, target: str = "secret.txt") -> Change:
    return lambda run, beside: away(run / name).symlink_to(beside / target)


def pipe(name: str) -> Change:
    return lambda run, beside: os.mkfifo(away(run / name))


def folder(name: str) -> Change:
    return lambda run, beside: away(run / name).mkdir()


def write(name: str, content: bytes | str) -> Change:
    data = content.encode(errors="surrogatepass") if isinstance(content, str) else content
    return lambda run, beside: _write(away(run / name), data)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def sparse(name: str, size: int) -> Change:
    def change(run: Path, beside: Path) -> None:
        with away(run / name).open("wb") as file:
            file.truncate(size)

    return change


def listening(name: str) -> Change:
    def change(run: Path, beside: Path) -> None:
        away(run / name)
        here = os.getcwd()
        os.chdir(run)  # the name of a socket is short
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(name)
        os.chdir(here)

    return change


def said(**fields: Any) -> Change:
    """run.json with other values; a value of `...` takes the key away."""

    def change(run: Path, beside: Path) -> None:
        record = json.loads((run / "run.json").read_text()) | fields
        kept = {key: value for key, value in record.items() if value is not ...}
        (run / "run.json").write_text(json.dumps(kept))

    return change


def loops(run: Path, beside: Path) -> None:
    away(run / "run.json").symlink_to("run.json")


def chain(run: Path, beside: Path) -> None:
    (run / "a").symlink_to("b")
    (run / "b").symlink_to(beside / "secret.txt")
    away(run / "run.json").symlink_to("a")


def odd_pictures(run: Path, beside: Path) -> None:
    picture = b"\x89PNG\r\n\x1a\n" + bytes(40)
    for name in (b"\xff\xfe.png", b"a\nb.png", b"\x1b[31m.png", b".png", b"..png", b"x" * 240 + b".png"):
        Path(os.fsdecode(os.fsencode(run / "plots") + b"/" + name)).write_bytes(picture)


LINKS: dict[str, Change] = {
    **{f"{name} is a link": link(name) for name in (*FILES, *WRITTEN)},
    **{f"{name} is a link to a folder": link(name, "elsewhere") for name in FOLDERS},
    "a plot is a link": link("plots/evil.png"),
    "the confusion matrix is a link": link("plots/confusion.png"),
    "an analysis is a link": link("analysis/similarity.png"),
    "an evaluation is a link": link("evaluations/x/evaluation.json"),
    "the folder of an evaluation is a link": link("evaluations/fake-8", "elsewhere"),
    "the last checkpoint is a link": link("checkpoints/last.ckpt"),
    "the manifest is a link": link("checkpoints/manifest.json"),
    "run.json is a link to a link to a link": chain,
    "run.json is a link to itself": loops,
    "plots is a link to itself": lambda run, beside: away(run / "plots").symlink_to("plots"),
    "report.html leads nowhere": link("report.html", "new.html"),
    "predictions.csv leads nowhere": link("predictions.csv", "new.csv"),
    "log.txt leads nowhere": link("log.txt", "new.txt"),
    "run.json is /dev/zero": lambda run, beside: away(run / "run.json").symlink_to("/dev/zero"),
    "metrics.csv is /dev/zero": lambda run, beside: away(run / "metrics.csv").symlink_to("/dev/zero"),
    "a plot is /dev/zero": lambda run, beside: (run / "plots/zero.png").symlink_to("/dev/zero"),
}
NO_FILES: dict[str, Change] = {
    **{f"{name} is a pipe": pipe(name) for name in (*FILES, *WRITTEN, "plots/x.png", "plots", "checkpoints/last.ckpt")},
    **{f"{name} is a socket": listening(name) for name in ("run.json", "metrics.csv")},
    **{f"{name} is a folder": folder(name) for name in (*FILES, *WRITTEN, "plots/x.png")},
    **{f"{name} is a file": write(name, "x") for name in ("plots", "checkpoints", "evaluations", "analysis")},
}
RECORDS: dict[str, Change] = {
    "run.json is empty": write("run.json", ""),
    "run.json is cut off": write("run.json", '{"state": "do'),
    "run.json is a list": write("run.json", "[1]"),
    "run.json nests deeply": write("run.json", '{"argv": ' + "[" * 50_000 + "]" * 50_000 + "}"),
    "run.json is not UTF-8": write("run.json", b'{"host": "\xff\xfe"}'),
    "run.json has a mark of order": write("run.json", b"\xef\xbb\xbf{}"),
    "run.json holds 200 MB": sparse("run.json", 200 * 2**20),
    "run.json lists millions": write("run.json", '{"argv": [' + "0," * 7_000_000 + "0]}"),
    "argv lists numbers": said(argv=[1, {}]),
    "argv has lone surrogates": said(argv=["\ud800", "\x1b[31m\x07"]),
    "chosen is a list": said(chosen=["model"]),
    "chosen names a path": said(chosen={"model": "../../x"}),
    "metrics are texts": said(metrics={"test/top1": "high"}),
    "metrics are a list": said(metrics=[1]),
    "metrics are null": said(metrics=None),
    "metrics are huge": said(metrics={"test/top1": 10**400}),
    "metrics are not numbers": said(metrics={"test/top1": float("nan"), "val/top1": float("inf")}),
    "a metric's name is a novel": said(metrics={"x" * 10_000: 1.0}),
    "epochs are a text": said(epochs="many"),
    "epochs are negative": said(epochs=-1),
    "epochs are true": said(epochs=True),
    "epochs are absent": said(epochs=...),
    "duration is endless": said(duration_s=float("inf")),
    "duration is a list": said(duration_s=[1]),
    "started is a number": said(started=7),
    "started has control characters": said(started="\x1b]0;x\x07\n"),
    "state is new": said(state="\x1b[31mwell"),
    "state is absent": said(state=...),
    "the reason is coloured": said(state="failed", reason="\x1b[31mred\x9b\u202e"),
    "the reason is a list": said(state="failed", reason=["x"]),
    "packages are a text": said(packages="torch"),
    "hardware is a text": said(hardware="gpu"),
    "hardware is absent": said(hardware=...),
    "classes are a number": said(classes=3),
    "monitor is a text": said(monitor="val/top1"),
    "monitor goes both ways": said(monitor=["val/top1", 0]),
    "git_commit is a number": said(git_commit=12),
    "the adapter is a list": said(adapter=[]),
    "the adapter lacks its base": said(adapter={"parameters": 1, "bytes": 2}),
    "trackers are a list": said(trackers=["x"]),
    "the name is a number": said(name=3),
    "the host is a list": said(host=[], pid="x"),
}
TEXTS: dict[str, Change] = {
    "metrics.csv is not UTF-8": write("metrics.csv", b"step,lr\n1,\xff\n"),
    "metrics.csv has no step": write("metrics.csv", "lr,val/loss\n1,2\n"),
    "metrics.csv steps to nowhere": write("metrics.csv", "step,val/loss\nnan,1\n2,1\n"),
    "metrics.csv has an endless epoch": write("metrics.csv", "step,epoch,val/loss\n1,1e999,1\n"),
    "metrics.csv has words": write("metrics.csv", "step,val/loss\n1,low\n"),
    "metrics.csv has a number of 5,000 digits": write("metrics.csv", f"step,val/loss\n1,{'9' * 5000}\n"),
    "metrics.csv has NULs": write("metrics.csv", "step,val/loss\n1,\0\n"),
    "metrics.csv has odd columns": write(
        "metrics.csv", "step,analysis/,analysis/x,analysis/x/y,\x1b[31m,\n1,1,1,1,1,1\n2,1,1,1,1,1\n"
    ),
    "metrics.csv has a million columns": write("metrics.csv", f"step{',' * 10**6}\n1{',' * 10**6}\n"),
    "metrics.csv holds 200 MB": sparse("metrics.csv", 200 * 2**20),
    "metrics.csv is empty": write("metrics.csv", ""),
    "log.txt is coloured and not UTF-8": write("log.txt", b"\x1b[31m\xff\x9b\n" * 50),
    "overrides.txt is no override": write("overrides.txt", "this is {none\n"),
    "overrides.txt sweeps": write("overrides.txt", "seed=1,2\nmodel=glob(*)\n++a.b[=c\n~x\n"),
    "overrides.txt is not UTF-8": write("overrides.txt", b"seed=\xff\n"),
    "overrides.txt holds 200 MB": sparse("overrides.txt", 200 * 2**20),
    "an evaluation is a list": write("evaluations/x/evaluation.json", "[]"),
    "an evaluation is a folder": folder("evaluations/x/evaluation.json"),
    "an evaluation is a pipe": pipe("evaluations/x/evaluation.json"),
    "an evaluation counts in words": write(
        "evaluations/x/evaluation.json", '{"checkpoint": null, "data": "x", "metrics": {"test/top1": "high"}}'
    ),
    "plots have odd names": odd_pictures,
    "a plot holds 200 MB": sparse("plots/big.png", 200 * 2**20),
    "config.yaml is not UTF-8": write("config.yaml", b"\xff\xfe"),
    "rules.yaml is a list": write("rules.yaml", "- 1\n"),
    "rules.yaml holds 200 MB": sparse("rules.yaml", 200 * 2**20),
    "the manifest is a list": write("checkpoints/manifest.json", "[]"),
    "the manifest has words": write("checkpoints/manifest.json", '{"schema": "two", "files": {}}'),
    "the manifest lists texts": write("checkpoints/manifest.json", '{"schema": 2, "files": {"a": "b"}}'),
    "the last checkpoint holds 200 MB": sparse("checkpoints/last.ckpt", 200 * 2**20),
}
# Those that take seconds, for slow proofs alone.
HEAVY: dict[str, Change] = {
    "metrics.csv holds millions of values": write("metrics.csv", "step,a\n" + "1,1\n" * 8_000_000),
}


def some(names: Iterable[str], every: int) -> list[Any]:
    """The names as parameters of a test: one of so many by default, the others as slow proofs."""
    return [pytest.param(name, marks=[pytest.mark.slow] if place % every else []) for place, name in enumerate(names)]


ALL = {**LINKS, **NO_FILES, **RECORDS, **TEXTS}
