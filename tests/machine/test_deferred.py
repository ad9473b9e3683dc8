"""A default run leaves alone what it does not need; what is asked for later works as if it had been there."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from vitexp.data.digits import _read_table

RUN = """
import sys
from vitexp.cli import main
assert main(["epochs=1", "quiet=true", "logger=csv"]) == 0
from vitexp.machine.deferred import _EARLY, is_pending
assert all(map(is_pending, _EARLY)), [name for name in _EARLY if not is_pending(name)]
idle = {"torchvision", "torch._inductor", "sympy", "scipy", "sklearn", "transformers", "pandas", "wandb", "mlflow"}
assert not idle & set(sys.modules), idle & set(sys.modules)
"""
LATER = """
import importlib
import vitexp, torch, pytorch_lightning
importlib.invalidate_caches()
from vitexp.machine.deferred import is_pending
from lightning_fabric.wrappers import OptimizedModule
from torchmetrics import Metric, MetricCollection

assert is_pending("torchmetrics") and is_pending("torch._dynamo")
assert not isinstance(torch.nn.Linear(2, 2), OptimizedModule)


@torch.compiler.disable
def plain(x):
    return x + 1


model = torch.nn.Linear(2, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
model(torch.ones(1, 2)).sum().backward()
optimizer.step()
assert plain(1) == 2 and is_pending("torch._dynamo")

import torch._dynamo.config as config  # a part before the whole: the compiler runs first, once
import torch._dynamo
assert not is_pending("torch._dynamo") and torch._dynamo.config is config
compiled = torch.compile(model, backend="eager")
assert isinstance(compiled, OptimizedModule) and isinstance(compiled, torch._dynamo.OptimizedModule)
assert torch.equal(compiled(torch.ones(1, 2)), model(torch.ones(1, 2)))
graphs = []
def backend(graph, inputs):
    graphs.append(graph)
    return graph.forward
torch.compile(lambda x: plain(x * 2) * 3, backend=backend)(torch.ones(2))
assert len(graphs) == 2, "the decorated function is left out of the graph"
optimizer.step()

import torchmetrics
for package in (torchmetrics, torchmetrics.functional):
    missing = [name for name in package.__all__ if not hasattr(package, name)]
    assert not missing, missing
assert not is_pending("torchmetrics")
assert torchmetrics.Metric is Metric and torchmetrics.MetricCollection is MetricCollection
assert "bleu_score" in dir(torchmetrics.functional)
assert torchmetrics.functional.bleu_score(["a b c d"], [["a b c d"]]) == 1
try:
    torchmetrics.Metrik
except AttributeError as error:
    assert "Metrik" in str(error)
"""


def run(code: str, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["MeanMetric", "Metric", "MetricCollection", "__version__", "functional"])
def test_each_name_may_be_the_first(name: str, tmp_path: Path) -> None:
    run(
        f"import vitexp; from torchmetrics import {name}; from torchmetrics.classification import BinaryAccuracy",
        tmp_path,
    )


def test_a_default_run_imports_what_it_needs(tmp_path: Path) -> None:
    run(RUN, tmp_path)


def test_what_is_used_later_works(tmp_path: Path) -> None:
    run(LATER, tmp_path)


def test_the_digits_are_scikit_learns() -> None:
    values, labels = load_digits(return_X_y=True)
    table = _read_table()
    np.testing.assert_array_equal(table[:, :-1], values)
    np.testing.assert_array_equal(table[:, -1], labels)
