"""What the protocols of contract.py find on the shipped models, and that they cost no torch."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from vitexp import contract
from vitexp.build import build_model
from vitexp.config.compose import compose

CAPABILITIES = {
    "vit_nano": {"SupportsTokens", "HasGrid", "SupportsFeatures", "SupportsLoading"},
    "mobilevit_xxs": {"HasGrid", "SupportsFeatures", "SupportsLoading", "SupportsAnySize"},
    "navit_nano": {
        *("SupportsTokens", "HasGrid", "SupportsFeatures", "SupportsLoading"),
        *("SupportsAnySize", "SupportsPacks"),
    },
}
ASKED = sorted(set.union(*CAPABILITIES.values()))


def test_the_contract_needs_no_torch() -> None:
    seen = "import sys, vitexp.contract; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", seen], text=True).strip() == "False"


@pytest.mark.parametrize("model", CAPABILITIES)
def test_what_a_model_offers(model: str) -> None:
    with torch.device("meta"):
        built = build_model(compose([f"model={model}", "data.image_size=32"]))
    assert {name for name in ASKED if isinstance(built, getattr(contract, name))} == CAPABILITIES[model]


def test_a_plain_module_offers_nothing() -> None:
    assert not [name for name in ASKED if isinstance(nn.Linear(2, 2), getattr(contract, name))]
