"""A network of another library as a model: its own layers, tensors and starting values, behind `net`."""

from collections.abc import Collection
from difflib import get_close_matches

from torch import Tensor, nn

from vitexp.errors import ConfigError
from vitexp.layer.head import zero_linear


class Library(nn.Module):
    """Images (B, C, H, W) to logits (B, K). Its head is `classifier` where that is one linear layer, else it has none.

    A final class builds `net` and names its `family`.
    """

    head_name: str
    head_names: tuple[str, ...]

    def __init__(self, net: nn.Module, *, classifier: object, num_classes: int) -> None:
        super().__init__()
        self.net, self.num_classes = net, num_classes
        self.position_tables: dict[str, int] = {}
        names = [name for name, part in self.named_modules() if part is classifier and isinstance(part, nn.Linear)]
        self.head_name = names[0] if names else ""
        head = self.get_submodule(self.head_name).state_dict() if names else {}
        self.head_names = tuple(f"{self.head_name}.{tensor}" for tensor in head)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits

    def reset_head(self, num_classes: int) -> None:
        """Put a new head for `num_classes` in place, all zero."""
        head = self.get_submodule(self.head_name)
        assert isinstance(head, nn.Linear)
        self.set_submodule(self.head_name, zero_linear(head, num_classes))
        self.num_classes = num_classes

    def adapt(self, name: str, tensor: Tensor) -> tuple[Tensor, str] | None:
        """Nothing is fitted: the library's own names and shapes, or an error."""
        return None


def require_name(name: str, known: Collection[str], *, library: str) -> None:
    """Raise ConfigError, with the nearest names, for a model that the library does not have."""
    if name not in known:
        near = get_close_matches(name, known, n=3, cutoff=0.4)
        raise ConfigError(
            f"{library} has no model.name={name}; it has {len(known)} others"
            + (f"; the nearest are {', '.join(near)}" if near else f", such as {min(known)}")
        )


def refused(error: TypeError, *, library: str, name: str, options: object) -> ConfigError:
    """The error of a library's model that does not take what it was given."""
    return ConfigError(f"{library}'s {name} does not take model.options={options} at this size ({error}); use another")
