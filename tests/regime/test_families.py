"""Every regime on one small model of every family: a step with gradients exactly where it says, or one line why not."""

import pytest
import torch

from tests.deep import tiny_deepvit
from tests.hybrid import tiny_hybrid
from tests.regime.trained import regime, trainable
from tests.tiny import tiny_swinv2, tiny_vit
from tests.tiny_efficientvit import tiny_efficientvit
from tests.tiny_mobile import mobilevit, mobilevitv2
from vitexp.config.compose import options
from vitexp.errors import ConfigError

# Each with the side of its images.
TOKENS = {"vit": (tiny_vit, 16), "hybrid": (tiny_hybrid, 32), "deepvit": (tiny_deepvit, 16)}
PYRAMIDS = {
    "swinv2": (tiny_swinv2, 32),
    "efficientvit": (tiny_efficientvit, 64),
    "mobilevit": (mobilevit, 64),
    "mobilevitv2": (mobilevitv2, 64),
}
# In `concat` nothing trains, and `extension` is `memory_masked` behind adapters, which have tests of their own.
REGIMES = sorted(set(options("regime")) - {"concat", "extension"})
ANY_MODEL = {"full", "head", "bias", "lora"}
REFUSED = {(family, name) for family in PYRAMIDS for name in set(REGIMES) - ANY_MODEL}
REFUSED.add(("efficientvit", "lora"))  # its projections are convolutions


@torch.no_grad()
def noisy(model: torch.nn.Module) -> torch.nn.Module:
    """No weight that trains is zero any more, as those of new heads and of the last norms of blocks are."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


# Of each kind one in CI: what has a class token, and what has none.
DEFAULT = (next(iter(TOKENS)), next(iter(PYRAMIDS)))


@pytest.mark.parametrize(
    "family", [n if n in DEFAULT else pytest.param(n, marks=pytest.mark.slow) for n in (*TOKENS, *PYRAMIDS)]
)
@pytest.mark.parametrize("name", REGIMES)
def test_a_step_reaches_exactly_what_trains_or_is_refused(name: str, family: str) -> None:
    if name == "lora":
        pytest.importorskip("peft")
    build, size = {**TOKENS, **PYRAMIDS}[family]
    base = build()
    if (family, name) in REFUSED:
        with pytest.raises(ConfigError, match=r"regime.*; .*use ") as caught:
            regime(name)(base, num_classes=3)
        assert type(base).__name__ in str(caught.value)
        return
    model = regime(name)(noisy(base), num_classes=3).train()
    torch.nn.functional.cross_entropy(
        noisy(model)(torch.randn(4, 3, size, size)), torch.tensor([0, 1, 2, 0])
    ).backward()
    gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    assert gradients.keys() == trainable(model)
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert sum(bool(gradient.any()) for gradient in gradients.values()) > len(gradients) // 2
