"""A loss or gradient that is not finite ends the run at its step, with what to do about it."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from vitexp.callback.finite import Finite
from vitexp.errors import DivergedError


def parts(step: int, *, norm: Tensor | None = None, scaler: object = None) -> tuple[SimpleNamespace, SimpleNamespace]:
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.25}])
    trainer = SimpleNamespace(global_step=step, scaler=scaler, optimizers=[optimizer])
    return trainer, SimpleNamespace(grad_norm=norm, trainer=trainer)


def end(finite: Finite, loss: float, step: int = 7, *, device: str = "cpu", **options: object) -> None:
    trainer, module = parts(step, **options)  # type: ignore[arg-type]
    finite.on_train_batch_end(trainer, module, {"loss": torch.tensor(loss, device=device)}, None, 0)


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_a_bad_loss_names_its_step_and_rate(loss: float) -> None:
    with pytest.raises(DivergedError, match=r"step 7: the loss is .*learning rate 0\.25.*lower lr") as caught:
        end(Finite(every=20), loss)
    assert caught.value.exit_code == 5


def test_a_bad_gradient_is_told_from_a_bad_loss() -> None:
    with pytest.raises(DivergedError, match="the gradient is not finite"):
        end(Finite(every=20), 1.0, norm=torch.tensor(float("inf")))


def test_a_loss_scaler_may_overflow() -> None:
    end(Finite(every=20), 1.0, norm=torch.tensor(float("inf")), scaler=object())


def test_a_good_step_passes() -> None:
    finite = Finite(every=1)
    end(finite, 1.0, norm=torch.tensor(3.0))
    finite.check(parts(7)[1])


class OnDevice:
    """A number that claims to be on a GPU: looking at it there would wait for the device."""

    def __init__(self, value: float) -> None:
        self.value, self.device = torch.tensor(value), SimpleNamespace(type="cuda")

    def detach(self) -> "OnDevice":
        return self

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return function(*(arg.value if isinstance(arg, cls) else arg for arg in args), **(kwargs or {}))


def test_on_a_gpu_the_first_bad_step_is_told_at_the_next_look() -> None:
    finite = Finite(every=10)
    for step, loss in ((3, 1.0), (4, float("nan")), (5, float("nan")), (9, 1.0)):
        trainer, module = parts(step)
        finite.on_train_batch_end(trainer, module, {"loss": OnDevice(loss)}, None, 0)
    trainer, module = parts(10)
    with pytest.raises(DivergedError, match="step 4"):
        finite.on_train_batch_end(trainer, module, {"loss": OnDevice(1.0)}, None, 0)


def test_nothing_bad_is_saved_between_two_looks() -> None:
    finite = Finite(every=1000)
    trainer, module = parts(4)
    finite.on_train_batch_end(trainer, module, {"loss": OnDevice(float("nan"))}, None, 0)
    with pytest.raises(DivergedError, match="step 4"):
        finite.check(module)
