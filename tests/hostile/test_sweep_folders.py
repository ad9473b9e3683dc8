"""Sweep folders that a stranger has bent: the command that continues them, and the page that compares their runs."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile.folders import CANARY, SMALL, Change, folder, link, pipe, some, sparse, write
from tests.hostile.judge import judge
from vitexp.files.folder import Folder
from vitexp.sweep.folder import Sweep, create_sweep
from vitexp.sweep.plan import grid, hash_of, sort_words

WORDS = (*SMALL, "seed=0,1")
SWEEP = "outputs/sweeps/2026-01-01_101500"
CONTINUED = ["-m", *WORDS]
JOB = ("job.json", "job.yaml", "output.txt", ".job.lock")
COMPARED = ["report", f"runs={SWEEP}"]


@pytest.fixture
def work(tmp_path: Path, trained: Path) -> Path:
    """A working directory with a sweep of two jobs, both done; beside it a secret."""
    work, beside = tmp_path / "work", tmp_path / "beside"
    shutil.copytree(trained, beside / "elsewhere")
    (beside / "secret.txt").write_text(CANARY)
    planned = grid(sort_words(WORDS), [])
    identity = hash_of(sorted(["train", *(job.digest for job in planned)]))
    sweep = create_sweep(work / "outputs", identity=identity, verb="train", argv=CONTINUED)
    sweep.add_all(planned)
    for job in sweep.jobs:
        metrics = json.loads((trained / "run.json").read_text())["metrics"]
        shutil.copytree(trained, job.path, dirs_exist_ok=True)
        job.update(state="done", exit_code=0, metrics=metrics)
    sweep.release()
    sweep.path.rename(work / SWEEP)
    return work


def job_says(**fields: object) -> Change:
    def change(sweep: Path, beside: Path) -> None:
        file = next(sweep.glob("0-*")) / "job.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return change


def in_job(make: Callable[[str], Change], name: str) -> Change:
    return lambda sweep, beside: make(name)(next(sweep.glob("0-*")), beside)


def whole_job(sweep: Path, beside: Path) -> None:
    job = next(sweep.glob("0-*"))
    job.rename(beside / "job")
    job.symlink_to(beside / "job")


def whole_sweep(sweep: Path, beside: Path) -> None:
    sweep.rename(beside / "sweep")
    sweep.symlink_to(beside / "sweep")


CHANGES: dict[str, Change] = {
    **{f"{name} is a link": link(name) for name in ("sweep.json", "sweep.csv", "sweep.png", "report.html", ".lock")},
    **{f"{name} of a job is a link": in_job(link, name) for name in JOB},
    **{f"{name} of a job is a pipe": in_job(pipe, name) for name in (*JOB[:2], "run.json", "metrics.csv")},
    "sweep.json is a pipe": pipe("sweep.json"),
    "sweep.json is a folder": folder("sweep.json"),
    "sweep.json is a list": write("sweep.json", "[]"),
    "sweep.json holds 200 MB": sparse("sweep.json", 200 * 2**20),
    "the folder of a job is a link": whole_job,
    "the folder of the sweep is a link": whole_sweep,
    "the verb is no verb": job_says(verb="os.system"),
    "the verb is a list": job_says(verb=[]),
    "the state is new": job_says(state="well"),
    "the number is a text": job_says(number="x"),
    "the number is negative": job_says(number=-1),
    "the seconds are endless": job_says(seconds=float("inf")),
    "the metrics are texts": job_says(metrics={"test/top1": "high"}),
    "the swept are a list": job_says(swept=["x"]),
    "the swept are coloured": job_says(swept={"\x1b[31mseed": "\x1b[31m0"}),
    "the reason is coloured": job_says(state="failed", reason="\x1b[31m"),
    "the argv is a number": job_says(argv=1),
}


@pytest.mark.parametrize("words", [CONTINUED, COMPARED], ids=["continued", "compared"])
def test_a_good_sweep_is_continued_and_compared(words: list[str], work: Path) -> None:
    assert judge(words, folder=work).code == 0
    assert (work / SWEEP / "report.html").is_file()


# A link that the user types is followed: it is theirs.
@pytest.mark.parametrize(
    "name", some([name for name in CHANGES if name != "the folder of the sweep is a link"], every=3)
)
def test_the_page_of_a_bent_sweep(name: str, work: Path) -> None:
    CHANGES[name](work / SWEEP, work.parent / "beside")
    judge(COMPARED, folder=work, canaries=[CANARY])


def leaves_the_sweep(name: str) -> bool:
    """Whether the command takes the bent sweep for another one, and would train its own."""
    return name.startswith("sweep.json") or name in ("the folder of the sweep is a link", "the reason is coloured")


@pytest.mark.parametrize("name", some([name for name in CHANGES if not leaves_the_sweep(name)], every=4))
def test_a_bent_sweep_is_continued(name: str, work: Path) -> None:
    CHANGES[name](work / SWEEP, work.parent / "beside")
    outcome = judge(CONTINUED, folder=work, canaries=[CANARY])
    if name.startswith(("the ", "job.json")) and name != "the swept are coloured":
        assert outcome.code == 4, outcome.err


def test_a_job_is_run_by_a_verb_that_there_is(tmp_path: Path) -> None:
    """The record of a job is checked when it is read, whoever starts it."""
    from vitexp.errors import CheckpointError
    from vitexp.sweep.job import run_job

    sweep = create_sweep(tmp_path, identity="x", verb="train", argv=[])
    sweep.add_all(grid(sort_words(WORDS), []))
    job_says(verb="os.system")(sweep.path, tmp_path)
    with pytest.raises(CheckpointError, match=r"verb is os\.system, which is none"):
        run_job(sweep.jobs[0].path)


def test_what_is_not_a_sweep_is_passed_over(tmp_path: Path) -> None:
    sweeps = tmp_path / "sweeps"
    sweeps.mkdir()
    (sweeps / "a\nb").mkdir()
    os.mkfifo(sweeps / "pipe")
    (sweeps / "loop").symlink_to("loop")
    Folder(tmp_path, "sweeps", "empty").made()
    from vitexp.sweep.folder import find_sweep

    assert find_sweep(tmp_path, "x") is None
    made = create_sweep(tmp_path, identity="x", verb="train", argv=[])
    made.release()
    found = find_sweep(tmp_path, "x")
    assert isinstance(found, Sweep)
    assert found.path == made.path
