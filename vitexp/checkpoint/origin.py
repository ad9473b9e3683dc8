"""A foreign naming of tensors: its author, the mark it is told by, its translation into ours.

`vitexp/checkpoint/names/<family>.py` lists the origins of a model family in `ORIGINS`, the first that fits is taken,
and offers `to_timm(tensors)`. A model names its family, so a new model brings a new file and edits none.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """One foreign naming of a model's tensors.

    Attributes:
        name: as printed.
        marker: regular expression that matches a tensor's name in such a file, and none in another origin's or ours.
        position_method: how its own code resizes positions (vitexp.layer.position.METHODS).
        translate: foreign tensors to ours; a name it does not know stays and is reported as unexpected.
        dropped: regular expression for tensors that have no place in our model and are left out, one line each.
        notes: lines printed on loading: what the translation changed in values, what pixels the weights expect.
    """

    name: str
    marker: str
    position_method: str
    translate: Callable[[Tensors], Tensors]
    dropped: str = r"(?!)"
    notes: tuple[str, ...] = ()

    def fits(self, names: Sequence[str]) -> bool:
        """Whether a file with tensors of these names is of this origin."""
        return any(re.search(self.marker, name) for name in names)


def rename(tensors: Mapping[str, Tensor], rules: Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]) -> Tensors:
    """Apply each rule (regular expression, replacement as re.sub takes it) in turn to every name."""
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def pair(tensors: Mapping[str, Tensor], pairs: Sequence[tuple[str, str]], *, back: bool = False) -> Tensors:
    """Rename by pairs (ours, theirs): ours to theirs in turn, or `back`, which undoes it from the last pair on.

    A pair is literal but for `^`, the start of a name, and `#`, a number that both sides have.
    """
    turned = [(theirs, ours) for ours, theirs in reversed(pairs)] if back else pairs
    return rename(tensors, [(_pattern(given), _replacement(wanted)) for given, wanted in turned])


def _pattern(text: str) -> str:
    return re.escape(text).replace(r"\^", "^").replace(r"\#", r"(\d+)")


def _replacement(text: str) -> str:
    first, *others = text.removeprefix("^").split("#")
    return first + "".join(rf"\g<{number}>{other}" for number, other in enumerate(others, 1))


def stack_qkv(tensors: Tensors, parts: tuple[str, str, str], *, inside: str = "attention") -> Tensors:
    """The three projections of each attention as one; a triple with a gap stays, to be reported as it is."""
    stacked = dict(tensors)
    for name in tensors:
        prefix, found, suffix = name.partition(f".{inside}.{parts[0]}.")
        triple = [f"{prefix}.{inside}.{part}.{suffix}" for part in parts]
        if found and all(member in tensors for member in triple):
            stacked[f"{prefix}.{inside}.qkv_projection.{suffix}"] = torch.cat([stacked.pop(m) for m in triple])
    return stacked
