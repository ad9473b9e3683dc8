"""Configurations made to harm, of a run and beside the command: no code, nothing outside, an answer in seconds."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.hostile.folders import some
from tests.hostile.judge import judge

TRAIN = ["model=vit_nano", "model.depth=1", "data=fake", "data.sizes=[16,16,16]", "epochs=1", "bs=16", "logger=none"]
CANARY = "written-by-a-stranger"
RED = "\x1b[31mowned\x07"
COPY = {"_target_": "shutil.copyfile", "src": "run.json", "dst": f"../{CANARY}"}
SHELL = {"_target_": "torch.utils.collect_env.run", "command": f"touch ../{CANARY}"}
SYSTEM = {"_target_": "os.system", "command": f"touch ../{CANARY}"}


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, as one has it from somebody, in a working directory of its own."""
    copy = tmp_path / "work" / "theirs"
    shutil.copytree(trained, copy, symlinks=True)
    return copy


def put(run: Path, key: str, value: object) -> None:
    """Change a key of the stored configuration."""
    content = yaml.safe_load((run / "rules.yaml").read_text())
    node = content
    *parents, last = key.split(".")
    for part in parents:
        node = node[part]
    node[last] = value
    (run / "rules.yaml").write_text(yaml.safe_dump(content, allow_unicode=True))


BENT: dict[str, tuple[str, object]] = {
    "a copy as the model": ("model", COPY),
    "a shell as the model": ("model", SHELL),
    "a shell as the attention": ("model.attention", SHELL | {"_partial_": True}),
    "a shell as the data": ("data.module", SHELL),
    "a shell among the arguments of the data": ("data.module.augment", SHELL),
    "a shell in a list": ("data.module.augment", [SHELL]),
    "a shell as positional argument": ("model._args_", [SHELL]),
    "a shell as the optimizer": ("optimizer", SYSTEM),
    "a shell as the schedule": ("schedule", SHELL),
    "a shell as the regime": ("regime", SHELL),
    "a shell as the task": ("task", SHELL),
    "a shell as the logger": ("logger", SHELL),
    "a shell as the analysis": ("analysis.measure", SHELL),
    "a target by way of vitexp": ("model", SHELL | {"_target_": "vitexp.cli.os.system"}),
    "a target that is a number": ("model._target_", 7),
    "a target that is a list": ("model._target_", ["os.system"]),
    "a target with a rude name": ("model._target_", RED),
    "a private class": ("model._target_", "vitexp.model.vit.__loader__"),
    "its own trust": ("trust", True),
    "its own trust and a shell": ("", None),
    "a model that is text": ("model", "vit"),
    "a model that is a list": ("model", [1, 2]),
    "no data": ("data", None),
    "a task that is text": ("task", "classify"),
    "a regime that is text": ("regime", "full"),
    "no optimizer": ("optimizer", None),
    "a trainer that is a list": ("trainer", []),
    "no model": ("model", None),
    "a depth of ten million": ("model.depth", 10**7),
    "a depth below zero": ("model.depth", -3),
    "a depth that is text": ("model.depth", "deep"),
    "heads that are a mapping": ("model.num_heads", {"a": 1}),
    "a dimension without end": ("model.dim", 10**30),
    "a size of zero": ("data.image_size", 0),
    "a size of a million": ("data.image_size", 10**6),
    "a batch of a billion": ("data.batch_size", 10**9),
    "batches of text": ("data.batch_size", "all"),
    "ten thousand workers": ("data.num_workers", 10_000),
    "workers below zero": ("data.num_workers", -1),
    "a seed that is text": ("seed", "seed"),
    "a name that leads outside": ("name", "../../" + CANARY),
    "an option that leads outside": ("chosen.data", f"../../../{CANARY}"),
    "an option with a rude name": ("chosen.model", RED),
    "options that are a list": ("chosen", ["a"]),
    "a checkpoint elsewhere": ("checkpoint", "/etc/passwd"),
    "a checkpoint on the net": ("checkpoint", "https://example.org/x.pth"),
    "an adapter elsewhere": ("adapter", "/etc/passwd"),
    "outputs elsewhere": ("outputs", f"../{CANARY}"),
    "a reference to itself": ("name", "${name}"),
    "the environment": ("name", "${oc.env:HOME}"),
    "a resolver of OmegaConf's": ("name", "${oc.decode:'1'}"),
    "a list of a billion": ("data.mean", "${repeat:1,1000000000}"),
    "devices without end": ("trainer.devices", 10**6),
    "a strategy that does not exist": ("trainer.strategy", RED),
    "an accelerator that does not exist": ("trainer.accelerator", {"a": 1}),
    "a precision that does not exist": ("precision", RED),
    "labels that lead outside": ("data.sizes", [10**12, 1, 1]),
    "a secret": ("model.api_key", "x"),
    "a number of classes below zero": ("data.num_classes", -1),
    "a billion classes": ("data.num_classes", 10**9),
}


@pytest.mark.parametrize("kind", some(BENT, 8))
def test_a_run_with_a_bent_configuration(kind: str, run: Path) -> None:
    key, value = BENT[kind]
    if key:
        put(run, key, value)
    else:
        put(run, "trust", True)
        put(run, "model", SHELL)
    judge(["evaluate", "run=theirs", "quiet=true"], folder=run.parent, canaries=["owned\x07"])


TEXTS = {
    "aliases of aliases": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    "text that doubles": "\n".join(f"a{i}: ${{a{i + 1}}}${{a{i + 1}}}" for i in range(60)) + "\na60: x",
    "lists that double": "\n".join(f"a{i}: ['${{a{i + 1}}}', '${{a{i + 1}}}']" for i in range(60)) + "\na60: x",
    "a Python object": "model: !!python/object/apply:os.system ['touch ../x']\n",
    "nested lists": "a: " + "[" * 100_000,
    "nested mappings": "".join(" " * depth + "a:\n" for depth in range(900)),
    "a number of a million digits": "a: " + "9" * 900_000,
    "not UTF-8": "a: \udcff",
    "a zero byte": "a: \0",
    "a list": "- 1\n- 2\n",
    "a word": "word",
    "nothing": "",
    "keys that are no text": "1: 2\n? [a]\n: b\n",
    "two megabytes": "a: " + "x" * (2 << 20),
    "two documents": "a: 1\n---\nb: 2\n",
    "a merge of itself": "a: &a\n  <<: *a\n",
}


@pytest.mark.parametrize("verb", [pytest.param("evaluate", marks=pytest.mark.slow), "resume"])
@pytest.mark.parametrize("kind", some(TEXTS, 2))
def test_a_run_whose_configuration_is_no_configuration(kind: str, verb: str, run: Path) -> None:
    (run / "rules.yaml").write_bytes(TEXTS[kind].encode("utf-8", "surrogateescape"))
    outcome = judge([verb, "run=theirs", "quiet=true"], folder=run.parent)
    assert outcome.code != 0 or verb == "resume"  # a finished run has nothing to resume


OPTIONS = {
    "trusts itself": {"trust": True, "model": SHELL},
    "a shell as the model": {"model": SHELL},
    "a copy as the model": {"model": COPY},
    "a callback of Hydra's": {"hydra": {"callbacks": {"x": SHELL}}},
    "a search path": {"hydra": {"searchpath": ["file:///"]}},
    "a class of logging": {"hydra": {"job_logging": {"handlers": {"x": {"class": "os.system"}}}}},
    "a launcher": {"hydra": {"launcher": SHELL}},
    "a sweeper": {"hydra": {"sweeper": SHELL}},
    "a folder of Hydra's": {"hydra": {"run": {"dir": f"../{CANARY}"}, "output_subdir": CANARY}},
    "the environment": {"model": {"name": "${oc.env:HOME}"}},
    "a model that is text": {"model": "x"},
    "defaults that lead outside": {"defaults": ["../../../etc/passwd"]},
    "an unknown key": {RED: RED},
}


@pytest.mark.parametrize("verb", [[], *(pytest.param(v, marks=pytest.mark.slow) for v in (["list", "models"], ["-m"]))])
@pytest.mark.parametrize("kind", some(OPTIONS, 2))
def test_a_folder_of_options(kind: str, verb: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "work" / "theirs" / "model"
    folder.mkdir(parents=True)
    (folder / "x.yaml").write_text("# @package _global_\n" + yaml.safe_dump(OPTIONS[kind]))
    words = ["model=x", *TRAIN[2:], "quiet=true"] if verb in ([], ["-m"]) else []
    judge([*verb, *words, "-cd", "theirs"], folder=tmp_path / "work", canaries=["owned\x07"])


def test_a_run_that_names_a_place_makes_no_folder_there(run: Path, tmp_path: Path) -> None:
    put(run, "chosen.data", "cifar100")
    cifar = {"_target_": "vitexp.data.cifar.CIFAR100", "root": str(tmp_path / "elsewhere")}
    put(run, "data.module", cifar)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"chosen": record["chosen"] | {"data": "cifar100"}}))
    judge(["evaluate", "run=theirs", "quiet=true"], folder=run.parent)
