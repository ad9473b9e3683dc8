"""Run folders that a stranger has bent: no verb reads or writes elsewhere, hangs, swells or calls it a bug."""

import os
import shutil
from pathlib import Path

import pytest

from tests.hostile.folders import ALL, CANARY, HEAVY, LINKS, NO_FILES, RECORDS, TEXTS, Change, some
from tests.hostile.judge import judge

NAME = "101500-bent-ab12"
RUN = f"run={NAME}"
# Verbs that answer in tenths of a second run by default; the others, on what concerns them, are slow proofs.
QUICK = (["report", RUN],)
SLOW = (
    ["evaluate", RUN],
    ["predict", RUN, "image=image.png", "data.num_workers=0"],
    ["resume", RUN],
    ["export", RUN],
    ["analyze", "analysis=similarity", RUN],
    ["prune", RUN, "epochs=1"],
    ["report", f"runs={NAME},good"],
    ["dashboard"],
    ["list", "adapters"],
)


@pytest.fixture
def work(tmp_path: Path, trained: Path) -> Path:
    """A working directory with a good run; beside it a secret, and a run with a secret."""
    from PIL import Image

    beside, work = tmp_path / "beside", tmp_path / "work"
    shutil.copytree(trained, beside / "elsewhere")
    (beside / "secret.txt").write_text(CANARY)
    for name in ("log.txt", "plots/confusion.png", "overrides.txt"):
        (beside / "elsewhere" / name).write_text(CANARY)
    shutil.copytree(trained, work / "outputs/2026-01-01/101000-good-0001")
    Image.new("RGB", (8, 8)).save(work / "image.png")
    return work


def bend(work: Path, trained: Path, change: Change, name: str = NAME) -> Path:
    run = Path(shutil.copytree(trained, work / "outputs/2026-01-01" / name))
    change(run, work.parent / "beside")
    return run


def test_bent_runs_are_listed_as_unreadable_beside_the_good_ones(work: Path, trained: Path) -> None:
    for number, change in enumerate(ALL.values()):
        bend(work, trained, change, f"{number:06d}-bent-ab12")
    numbers = {name: f"{number:06d}-bent-ab12" for number, name in enumerate(ALL)}
    for words in (["list", "runs"], ["list", "adapters"], ["evaluate", "run=101"]):
        outcome = judge(words, folder=work, canaries=[CANARY])
    said = judge(["list", "runs"], folder=work, canaries=[CANARY]).out
    assert "101000-good-0001" in said
    listed = {
        line.split()[0].rpartition("/")[2]: line
        for line in said.split("unreadable: ")[0].splitlines()
        if "-bent-" in line
    }
    assert listed.keys() == set(numbers.values())
    assert outcome.code == 0
    for name in (*RECORDS, *(name for name in ALL if name.startswith("run.json is a"))):
        odd = ("metrics are not numbers", "epochs are absent", "state is absent", "hardware is absent")
        fine = name in (*odd, "argv has lone surrogates", "the reason is coloured", "started has control characters")
        assert ("unreadable" in listed[numbers[name]]) != fine, name
    reasons = "".join(line for line in said.splitlines() if line.startswith("unreadable: "))
    for reason in ("metrics.test/top1 is 'high', not a number", "epochs is -1, not from 0", "is a link, and a run"):
        assert reason in reasons


@pytest.mark.parametrize("name", [*some(LINKS, every=2), *some([*NO_FILES, *TEXTS], every=5)])
def test_the_page_of_a_bent_run(name: str, work: Path, trained: Path) -> None:
    bend(work, trained, ALL[name])
    for words in QUICK:
        judge(words, folder=work, canaries=[CANARY])


def concerned(words: list[str]) -> list[str]:
    """The changes that concern a slow verb: all for those that show runs, else not those of what only pages show."""
    if words[0] in ("report", "dashboard", "list", "resume"):
        return [*ALL, *HEAVY]
    shown = ("plot", "log.txt", "metrics.csv", "overrides.txt", "config.yaml", "report.html")
    return [name for name in (*LINKS, *NO_FILES, *TEXTS) if not name.startswith(shown)]


@pytest.mark.slow
@pytest.mark.parametrize("words", SLOW, ids=lambda words: "-".join(words[:1] + words[1:2]))
def test_every_verb_on_bent_runs(words: list[str], work: Path, trained: Path) -> None:
    faults = []
    for name in concerned(words):
        run = bend(work, trained, {**ALL, **HEAVY}[name])
        try:
            judge(words, folder=work, canaries=[CANARY])
        except AssertionError as fault:
            faults.append(f"{name}: {fault}")
        shutil.rmtree(run)
    assert not faults, "\n\n".join(faults)


def test_folders_of_odd_names_and_links_in_place_of_runs(work: Path, trained: Path) -> None:
    day = work / "outputs/2026-01-01"
    beside = work.parent / "beside"
    (day / "101600-linked-ab12").symlink_to(beside / "elsewhere")
    (day / "101700-dangling-ab12").symlink_to(beside / "nowhere")
    (day / "loop").symlink_to("loop")
    (work / "outputs/2026-01-02").symlink_to(beside)
    (work / "outputs/2026-01-03").write_text("no folder")
    os.mkfifo(work / "outputs/2026-01-04")
    (work / "outputs/sweeps").symlink_to(beside)
    for name in (b"\xff\xfe", b"a\nb", b"\x1b[31m", b"x" * 255, b"...", b"-rf"):
        shutil.copytree(trained, os.fsdecode(os.fsencode(day) + b"/" + name))
    for words in (["list", "runs"], ["list", "adapters"], ["dashboard"], ["report", "run=101600-linked-ab12"]):
        outcome = judge(words, folder=work, canaries=[CANARY])
    assert outcome.code == 4
    assert "is a link" in outcome.err
    said = judge(["list", "runs"], folder=work, canaries=[CANARY]).out
    assert said.count(" unreadable ") == 9
    assert "101000-good-0001" in said
    judge(["report", "run=101000"], folder=work, canaries=[CANARY])


@pytest.mark.parametrize("target", ["../beside/elsewhere", "/absolute", "2026-01-01", "last", "a\nb", "2026-01-01/no"])
def test_last_leads_to_runs_under_outputs_only(target: str, work: Path) -> None:
    (work / "outputs/last").symlink_to(f"{work.parent}/beside/elsewhere" if target == "/absolute" else target)
    outcome = judge(["report", "run=last"], folder=work, canaries=[CANARY])
    assert outcome.code == (0 if target == "2026-01-01/no" else 4)
