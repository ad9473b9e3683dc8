"""Adapters made to harm, by every verb that reads them: their header is data, and no name in it is a path."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.hostile.folders import some
from tests.hostile.judge import judge

CANARY = "written-by-a-stranger"
RED = "\x1b[31mowned\x07"
SMALL = ["model=vit_nano", "model.pool=token", "model.depth=1", "data=fake", "data.sizes=[16,16,16]", "bs=16"]
QUICK = ["epochs=1", "logger=none", "quiet=true", "data.num_workers=0"]
SHELL = {"_target_": "torch.utils.collect_env.run", "command": f"touch ../{CANARY}"}

Header = dict[str, str]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, an adapter on it and a run that joins it with another: base.safetensors, one.safetensors, joined/."""
    work = tmp_path_factory.mktemp("tasks") / "work"
    work.mkdir()
    assert judge([*SMALL, *QUICK], folder=work).code == 0
    shutil.copy(next(work.glob("outputs/[0-9]*/*/weights.safetensors")), work / "base.safetensors")
    for seed, name in enumerate(("one", "two")):
        words = ["regime=memory_masked", "checkpoint=base.safetensors", f"seed={seed}", f"name={name}"]
        assert judge([*SMALL, *QUICK, *words], folder=work).code == 0
        shutil.copy(next(work.glob(f"outputs/[0-9]*/*-{name}-*/adapter.safetensors")), work / f"{name}.safetensors")
    joins = ["concat", "adapters=[one.safetensors,two.safetensors]", "checkpoint=base.safetensors", "name=joined"]
    assert judge([*joins, "quiet=true"], folder=work).code == 0
    shutil.copytree(next(work.glob("outputs/[0-9]*/*-joined-*")), work / "joined")
    shutil.rmtree(work / "outputs")
    return work


@pytest.fixture
def work(tasks: Path, tmp_path: Path) -> Path:
    """A copy of them."""
    return Path(shutil.copytree(tasks, tmp_path / "work"))


def said(key: str, value: object) -> Callable[[Header], None]:
    return lambda header: header.update({key: json.dumps(value)})


def rule(key: str, value: object) -> Callable[[Header], None]:
    """Change a key of the configuration in the header."""

    def change(header: Header) -> None:
        content = yaml.safe_load(json.loads(header["rules"]))
        node = content
        *parents, last = key.split(".")
        for parent in parents:
            node = node[parent]
        node[last] = value
        header["rules"] = json.dumps(yaml.safe_dump(content))

    return change


HEADERS: dict[str, Callable[[Header], object]] = {
    "a name that leads outside": said("data", f"../../{CANARY}"),
    "an absolute name": said("data", f"/tmp/{CANARY}"),
    "a name of dots": said("data", ".."),
    "a rude name": said("data", RED),
    "a name without end": said("data", "x" * 5000),
    "a name that is a list": said("data", ["a"]),
    "no name": lambda header: header.pop("data"),
    "classes that are a number": said("classes", 3),
    "classes that are numbers": said("classes", [1, 2]),
    "rude classes": said("classes", [RED] * 10),
    "metrics that are a list": said("metrics", [1]),
    "metrics that are text": said("metrics", {"test/top1": "much"}),
    "a base that is a number": said("base", 7),
    "another base": said("base", "0" * 64),
    "an order that is text": said("earlier", "x"),
    "an order of others": said("earlier", ["0" * 64]),
    "a size that is text": said("image_size", "8"),
    "a mean that is text": said("mean", "0.5"),
    "a header that is no JSON": lambda header: header.update(mean="[" * 4000),
    "an infinite mean": lambda header: header.update(mean="[Infinity]"),
    "rules that are a number": said("rules", 5),
    "rules that are no configuration": said("rules", "word"),
    "rules that double": said("rules", "\n".join(f"a{i}: ${{a{i + 1}}}${{a{i + 1}}}" for i in range(60)) + "\na60: x"),
    "rules with aliases of aliases": said("rules", "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"),
    "rules that trust themselves": rule("trust", True),
    "rules with a shell as the data": rule("data.module", SHELL),
    "rules with a shell as the model": rule("model", SHELL),
    "rules with a shell as the task": rule("task", SHELL),
    "rules with a depth of ten million": rule("model.depth", 10**7),
    "rules with outputs elsewhere": rule("outputs", f"../{CANARY}"),
    "rules with another option": rule("chosen.data", f"../../{CANARY}"),
    "rules with a billion classes": rule("data.num_classes", 10**9),
    "rules without a model": rule("model", None),
}
TENSORS: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "no tensor of ours": lambda tensors: [tensors.clear(), tensors.update(a=torch.zeros(2))],
    "a memory of another width": lambda tensors: tensors.update(_memory(tensors, torch.zeros(1, 1, 7))),
    "a memory without a dimension": lambda tensors: tensors.update(_memory(tensors, torch.tensor(1.0))),
    "a rude tensor": lambda tensors: tensors.update({RED: torch.zeros(1)}),
    "integers": lambda tensors: tensors.update({name: tensor.int() for name, tensor in tensors.items()}),
}


def _memory(tensors: dict[str, Tensor], value: Tensor) -> dict[str, Tensor]:
    return {name: value for name in tensors if name.endswith(".memory")}


def bend(file: Path, kind: str) -> None:
    tensors = load_file(file)
    with safe_open(file, framework="pt") as opened:
        header = dict(opened.metadata())
    if kind in TENSORS:
        TENSORS[kind](tensors)
    else:
        HEADERS[kind](header)
    save_file(tensors, file, metadata=header)


@pytest.mark.parametrize("kind", some([*HEADERS, *TENSORS], 8))
def test_tasks_are_joined_or_refused(kind: str, work: Path) -> None:
    bend(work / "one.safetensors", kind)
    words = ["concat", "adapters=[one.safetensors,two.safetensors]", "checkpoint=base.safetensors", "quiet=true"]
    judge(words, folder=work, canaries=["owned\x07"])


@pytest.mark.parametrize("verb", ["evaluate", pytest.param("predict", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", some([*HEADERS, *TENSORS], 8))
def test_a_joined_run_answers_or_is_refused(kind: str, verb: str, work: Path) -> None:
    bend(next((work / "joined" / "adapters").iterdir()), kind)
    words = ["image=grey.png"] if verb == "predict" else []
    if words:
        from PIL import Image

        Image.new("RGB", (8, 8)).save(work / "grey.png")
    judge([verb, "run=joined", "quiet=true", *words], folder=work, canaries=["owned\x07"])
