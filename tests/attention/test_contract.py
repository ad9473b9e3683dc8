"""Every file in conf/attention keeps the attention contract, by its class's own flags; one that breaks it is found."""

from functools import partial
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from vitexp import build
from vitexp.attention import checks
from vitexp.attention.checks import checks_for
from vitexp.attention.softmax import Softmax
from vitexp.config.compose import conf_dir
from vitexp.errors import ConfigError

FILES = sorted((conf_dir() / "attention").glob("*.yaml"), key=lambda path: path.stem)


def factory_of(path: Path):
    return build.make(OmegaConf.load(path))


PAIRS = [
    pytest.param(path, check, id=f"{path.stem}-{check.__name__}")
    for path in FILES
    for check in checks_for(factory_of(path))
]


@pytest.mark.parametrize(("path", "check"), PAIRS)
def test_contract(path: Path, check) -> None:
    check(factory_of(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_its_place_in_the_configuration(path: Path) -> None:
    assert path.read_text().splitlines()[0] == "# @package model.attention"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_heads_that_divide_are_named(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"num_heads must divide dim; use one of 1, 2, 3$"):
        factory_of(path)(checks.DIM, 5, grid=checks.GRID)


class Forgets(Softmax):
    """A softmax that leaves one thing out, or brings one in."""

    def __init__(self, *args, fault: str, **kwargs) -> None:
        super().__init__(*args, qkv_bias=True, temperature=1.0, **kwargs)
        self.fault = fault
        self.idle = torch.nn.Parameter(torch.ones(1)) if fault == "idle" else None

    def weights(self, q, k, mask=None, bias=None):
        return super().weights(q, k, None if self.fault == "mask" else mask, None if self.fault == "bias" else bias)

    def attend(self, q, k, v, mask=None, bias=None):
        if self.fault == "fused":
            v = v * 1.01
        if self.fault == "masked" and mask is not None:
            v = v * 1.01
        if self.fault == "place":
            v = v * torch.linspace(1, 2, v.shape[2])[:, None]
        return v.roll(1, 0) if self.fault == "sample" else self.weights(q, k, mask, bias) @ v

    def qkv(self, x, context=None):
        return super().qkv(x, None if self.fault == "context" else context)


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("mask", checks.hidden_keys_have_no_influence),
        ("masked", checks.hidden_keys_have_no_influence),
        ("masked", checks.masked_context_is_none),
        ("mask", checks.masked_weights_are_zero),
        ("mask", checks.a_query_that_may_attend_nothing),
        ("bias", checks.bias_reaches_the_scores),
        ("context", checks.context_adds_keys_and_values),
        ("fused", checks.fused_equals_plain),
        ("place", checks.permuted_tokens_give_permuted_answers),
        ("sample", checks.samples_do_not_mix),
        ("idle", checks.shape_and_gradients),
    ],
)
def test_a_fault_is_found(fault: str, check) -> None:
    check(partial(Forgets, fault="none"))
    with pytest.raises(AssertionError):
        check(partial(Forgets, fault=fault))


def test_missing_flags_and_heads_that_nobody_counts_are_found() -> None:
    with pytest.raises(AssertionError):
        checks.flags_are_declared(torch.nn.Identity)
    with pytest.raises(AssertionError):
        checks.heads_must_divide(lambda dim, num_heads, *, grid: torch.nn.Identity())
