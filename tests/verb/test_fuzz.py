"""Mutated command lines end in one line that names what is wrong, never as a bug, and leave nothing behind.

Each stops where its verb, or the first job of a sweep, would start.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from vitexp import cli
from vitexp.sweep import command as sweep_command

COMMANDS = [
    ["model=vit_ti16", "data=cifar100", "epochs=5", "lr=3e-4"],
    ["train", "model=swinv2", "data=folder", "data.root=photos", "augment=strong", "trainer.clip=0.5"],
    ["train", "model=navit_ti16", "data=coco_crops", "bs=auto", "seed=3", "name=mine"],
    ["evaluate", "run=last", "size=64,96", "select=best"],
    ["evaluate", "model=vit_b16", "checkpoint=hf:some/vit", "data=imagenet", "fuse=false"],
    ["resume", "run=last", "epochs=40", "resume.allow=[trainer.clip]", "data.changed=accept"],
    ["analyze", "analysis=similarity", "run=last", "analysis.tau=0.5"],
    ["report", "runs=a,b,c", "outputs=elsewhere"],
    ["list", "models"],
    ["list", "runs", "outputs=elsewhere"],
    ["export", "run=last", "to=onnx", "file=model.onnx"],
    ["prune", "run=last", "analysis.budget=0.5", "epochs=2"],
    ["predict", "run=last", "image='photos/*.jpg'", "quiet=true"],
    ["data", "check", "data=folder", "data.root=photos"],
    ["benchmark", "what=model", "model=vit_s16", "against=timm", "bs=8"],
    ["concat", "adapters=[a,b]", "checkpoint=base.safetensors"],
    ["-m", "lr=1e-3,3e-4", "seed=0,1,2", "slots=2"],
    ["-m", "sweeper=optuna", "sweeper.trials=4", "optimizer.lr=interval(1e-4,1e-2)"],
    ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu", "precision=bf16"],
    ["--cfg", "job", "model=detr_r50", "data=coco"],
    ["--config-dir", "mine", "model=vit_nano", "regime=lora"],
    ["--help"],
]
PIECES = [
    *"=,[]{}'$:~+@-.* \t\n\0\x1b\x7fé名\ud800🙂\u202e\"\\",
    *("${", "--", "-1", "1e999", "nan", "null", "true", "[1,2]", "{a:1}", "abc", "../..", "range(1,3)", "0x10", "1_0"),
    *("${data.root}", "${oc.env:HOME}", "${nothing}"),
]


def mutations(count: int, seed: int) -> Iterator[list[str]]:
    draw = random.Random(seed)
    for number in range(count):
        words = list(COMMANDS[number % len(COMMANDS)])
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            mutate(words, draw)
        yield words


def mutate(words: list[str], draw: random.Random) -> None:
    """Drop, double or swap words or characters; put something else for a character, a value, a key or a word."""
    at = draw.randrange(len(words)) if words else 0
    word = words[at] if words else ""
    place, piece = draw.randrange(len(word) + 1), draw.choice(PIECES)
    key, equals, value = word.partition("=")
    kind = draw.randrange(9)
    if kind == 0:
        words[at : at + 1] = []
    elif kind == 1:
        words[at:at] = [word]
    elif kind == 2:
        draw.shuffle(words)
    else:
        swapped = word[:place] + word[place + 1 : place + 2] + word[place : place + 1] + word[place + 2 :]
        changed = [word[:place] + word[place + 1 :], word[:place] + word[place : place + 1] + word[place:], swapped]
        changed += [word[:place] + piece + word[place:], f"{key}{equals}{piece}", f"{piece}{equals}{value}"]
        words[at : at + 1] = [changed[kind - 3]]


def says(message: str, words: Sequence[str]) -> bool:
    """Whether a message has some word of the command in it, its key, its value, or a part of a list."""
    parts = {part for word in words for part in (word, *word.replace(",", "=").split("="))}
    shown = {part.strip("'\"[]{}$- ") for part in parts} | {repr(part)[1:-1] for part in parts}
    return any(part and part in message for part in shown) or ("" in words and "''" in message)


class Started(Exception):
    """A sweep has composed every job and would start now."""


@pytest.mark.parametrize(("count", "seed"), [(110, 1)])
def test_a_mutated_command_is_answered(
    count: int, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def start(*_: object) -> None:
        raise Started

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "call", lambda verb, command: None)
    monkeypatch.setattr(sweep_command, "_open", start)
    monkeypatch.setattr(cli, "_hand_to_hydra", lambda flags, words: 0)
    wrong = []
    for words in mutations(count, seed):
        monkeypatch.setattr("sys.argv", ["vitexp"])
        code = cli.main(words)
        message = capsys.readouterr().err
        stopped = code == 1 and "(Started)" in message
        if not stopped and (code not in (0, 2, 3, 4) or "Traceback" in message):
            wrong.append((words, code, message[-300:]))
        elif code in (2, 3, 4) and not (says(message, words) and message.count("\n") == 1):
            wrong.append((words, code, message))
        if list(tmp_path.iterdir()):
            wrong.append((words, "left", [path.name for path in tmp_path.iterdir()]))
            break
    assert not wrong, "\n".join(map(repr, wrong[:12])) + f"\n{len(wrong)} in all"
