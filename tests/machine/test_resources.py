"""Memory and disk that give out are exit 6, whatever reports them and whichever verb runs."""

import errno
import sys

import pytest
import torch

from vitexp.config import command
from vitexp.config.command import Command, call
from vitexp.config.compose import compose
from vitexp.errors import DataError, ResourceError
from vitexp.machine.resources import Asked, resource_error

ASKED = Asked(batch_size=64, image_size=32, accumulate=2, outputs="outputs")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "trainer.accumulate=4"),
        (torch.OutOfMemoryError("tried to allocate 80 GiB"), "80 GiB"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"), "lower bs="),
        (RuntimeError("CUDA error: out of memory"), "lower bs="),
        (OSError(errno.ENOSPC, "No space left on device", "outputs/a"), "outputs/a: No space left on device"),
        (OSError(errno.ENOSPC, "No space left on device"), "free space"),
        (PermissionError(errno.EACCES, "Permission denied", "outputs/b"), "fix the permission"),
        (RuntimeError("[pair.cc:561] Connection closed by peer [127.0.0.1]:1"), "`vitexp resume` continues"),
        (
            RuntimeError("[enforce fail at inline_container.cc:1] . PytorchStreamWriter failed: file write failed"),
            "free",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_gave_out_is_named_with_what_to_do(error: Exception, said: str) -> None:
    named = resource_error(error, ASKED)
    assert isinstance(named, ResourceError)
    assert said in str(named)
    assert "\n" not in str(named)


@pytest.mark.parametrize("error", [KeyError("bs"), RuntimeError("shapes differ"), FileNotFoundError(2, "absent", "a")])
def test_other_errors_are_left_alone(error: Exception) -> None:
    assert resource_error(error, ASKED) is None


@pytest.mark.parametrize("verb", ["train", "evaluate", "predict", "analyze", "export"])
def test_every_verb_says_so(verb: str, monkeypatch) -> None:
    class Module:
        """Stands for the module of any verb."""

    raised: list[Exception] = [torch.OutOfMemoryError("no room"), DataError("no such file"), KeyError("a bug")]

    def give_out(asked: Command) -> None:
        raise raised[0]

    setattr(Module, verb, staticmethod(give_out))
    monkeypatch.setattr(command, "import_module", lambda name: Module)
    for kind in (ResourceError, DataError, KeyError):
        with pytest.raises(kind):
            call(verb, Command(compose(["data=fake"]), [], []))
        raised.pop(0)


def test_nothing_of_torch_is_asked_where_it_was_not_imported(monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    assert resource_error(KeyError("bs"), ASKED) is None
