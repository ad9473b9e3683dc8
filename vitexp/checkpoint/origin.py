"""How a foreign naming of tensors is described: who writes it, how it is told, how it becomes ours.

`vitexp/checkpoint/names/<family>.py` lists the origins of a model family in `ORIGINS`, the first that fits is taken,
and offers `to_timm(tensors)`. A model names its family, so a new model brings a new file and edits none.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

Tensors = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """One foreign naming.

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
