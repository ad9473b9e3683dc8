"""Adapters: what a regime trained, without the frozen base, in a small file that knows which base it belongs to.

A regime leaves on its model the `fingerprint` of the base, the names its tensors had (`plain_names`), and the mark
`stays_in_eval` on its frozen modules. What takes gradients is the adapter, and what training moves without them: the
running statistics of norms that are not frozen. Checkpoints of such a run hold the same, plus the optimizer.
"""

import json
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, NotRequired, TypedDict

from torch import Tensor, nn

from vitexp.checkpoint.fingerprint import digest
from vitexp.checkpoint.read import load_torch, read_tensors, unwrap
from vitexp.checkpoint.write import save_tensors
from vitexp.contract import HasBase, StaysInEval
from vitexp.errors import CheckpointError
from vitexp.files.record import Chars, Count, Metrics, Name, Option, Raw, parse
from vitexp.files.strict_json import parse_json

ADAPTER = "adapter.safetensors"
BASE: Final = "base"  # key of the base's fingerprint, in a checkpoint and in an adapter's header


class AdapterHeader(TypedDict):
    """The words of an adapter about itself: its base, the run that trained it, its images, classes and metrics."""

    base: Option
    run: Option
    regime: Option
    model: Option
    attention: Option | None
    data: Name
    metrics: Metrics
    memory_norm: bool | None
    image_size: Count
    channels: Count
    mean: list[float]
    std: list[float]
    classes: list[Raw]
    earlier: NotRequired[list[Option]]
    rules: Annotated[str, Chars(1 << 20, raw=True)]


@dataclass(frozen=True)
class Adapter:
    """One adapter file: its tensors as the trained model names them, and what it says of itself."""

    path: Path
    tensors: dict[str, Tensor]
    about: AdapterHeader

    @property
    def digest(self) -> str:
        """The digest of the tensors: two adapters with one digest are the same task."""
        return digest(self.tensors)


def trained_names(model: nn.Module) -> frozenset[str] | None:
    """Names of the tensors that training changes beside a frozen base; None for a model without one."""
    if not isinstance(model, HasBase):
        return None
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return frozenset(names | _moving_buffers(model))


def _moving_buffers(model: nn.Module) -> set[str]:
    """Names of the buffers that are saved and follow the mode of training, as running statistics do."""
    still = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, StaysInEval))
    saved = model.state_dict().keys() & dict(model.named_buffers()).keys()
    return {name for name in saved if not name.startswith(still)}


def is_whole(model: nn.Module) -> bool:
    """Whether the state dict of a model is one of the plain model: nothing was added by a regime."""
    return not isinstance(model, HasBase) or model.plain_names == set(model.state_dict())


def without_base(state: Mapping[str, Any], names: Set[str] | None, *, prefix: str = "") -> dict[str, Any]:
    """A state dict without the frozen tensors of the module called `prefix`; all of it if nothing is frozen."""
    if names is None:
        return dict(state)
    return {k: value for k, value in state.items() if not k.startswith(prefix) or k.removeprefix(prefix) in names}


def write_adapter(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write an adapter; each value of `about` becomes JSON in the header."""
    save_tensors(dict(tensors), path, {key: json.dumps(value, default=str) for key, value in about.items()})


def read_adapter(source: str | Path) -> Adapter:
    """The adapter in a file, or in the folder of a run.

    Raises:
        CheckpointError: absent, damaged, or other weights.
    """
    path = Path(source).expanduser()
    path = path / ADAPTER if path.is_dir() else path
    if not path.is_file():
        raise CheckpointError(
            f"{source} holds no adapter; runs of a regime that keeps its base frozen write {ADAPTER}; "
            "`vitexp list adapters` shows what there is"
        )
    tensors, metadata = read_tensors(path)
    if BASE not in metadata:
        raise CheckpointError(f"{path} holds weights, no adapter: it names no base; give it as checkpoint=")
    content = {
        key: parse_json(metadata[key], object, source=f"{key} of {path}", error=CheckpointError, advice="copy it again")
        for key in AdapterHeader.__annotations__.keys() & metadata.keys()
    }
    return Adapter(path, tensors, parse(AdapterHeader, content, source=str(path), advice="copy it again"))


def is_adapter(path: Path) -> bool:
    """Whether a file of weights is only the trained part beside a frozen base."""
    if path.suffix == ".safetensors":
        return path.name == ADAPTER
    content = load_torch(path)
    return isinstance(content, dict) and BASE in content


def put_adapter(model: nn.Module, source: str | Path) -> None:
    """Load what trained, from an adapter or a checkpoint of the same regime, into a model, in place.

    Raises:
        CheckpointError: another base, other tensors.
    """
    path = Path(source)
    if path.suffix == ".safetensors" or path.is_dir():
        adapter = read_adapter(path)
        tensors, base = adapter.tensors, str(adapter.about[BASE])
        if adapter.about.get("earlier", []) != (list(model.earlier) if isinstance(model, HasBase) else []):
            raise CheckpointError(
                f"{path} was trained on top of other earlier tasks than are here; give regime.earlier= the adapters "
                "that it was trained with"
            )
    else:
        content = load_torch(path)
        tensors, base = unwrap(content, path), str(content[BASE])
    require_base(model, base, path)
    names = trained_names(model) or frozenset()
    expected = {name: tensor.shape for name, tensor in model.state_dict().items() if name in names}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if found != expected:
        wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        raise CheckpointError(
            f"{path} does not fit the regime: {', '.join(wrong[:4])} differ; use the regime= and its options that "
            "the file was trained with"
        )
    model.load_state_dict(tensors, strict=False)


def require_base(model: nn.Module, base: str, path: Path) -> None:
    """Raise CheckpointError unless the base of `model` is the one with the fingerprint `base`."""
    own = model.fingerprint if isinstance(model, HasBase) else None
    if own != base:
        here = f"the base here is {own[:12]}" if own else "the model here has no frozen base"
        raise CheckpointError(
            f"{path} was trained on a base with the fingerprint {base[:12]} and {here}; give checkpoint= the file that "
            "it was trained from, and the same size="
        )
