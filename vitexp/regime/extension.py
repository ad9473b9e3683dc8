"""Model extension: a masked memory trained on top of earlier ones, which it may read (Sandler et al. 2022, Table 1)."""

from collections.abc import Mapping, Sequence

from torch import nn

from vitexp.checkpoint.adapter import BASE, read_adapter, require_base
from vitexp.errors import ConfigError
from vitexp.regime.base import require_tokens, set_rates
from vitexp.regime.concat import join
from vitexp.regime.memory_masked import last_task_parts, new_task


def extension(
    model: nn.Module,
    *,
    num_classes: int,
    earlier: Sequence[str],
    num_tokens: int,
    std: float,
    class_token: str,
    memory_norm: bool,
    lr_scale: Mapping[str, float],
    weight_decay: Mapping[str, float | None],
    cache: bool = False,
) -> nn.Module:
    """A new task trains and reads the class tokens and memories of the tasks before it; those and the base stay.

    Args:
        model: the base that the earlier tasks were trained on.
        num_classes: of the new head.
        earlier: adapter files, or folders of runs, of `memory_masked` or `extension`, in the order of their training.
        num_tokens, std, class_token, memory_norm, lr_scale, weight_decay: as in `vitexp.regime.memory.memory`.
        cache: as in `vitexp.regime.memory_masked.memory_masked`.
    """
    if not earlier:
        raise ConfigError(
            "regime=extension trains on top of earlier tasks and regime.earlier is empty; "
            "use regime.earlier=[outputs/last], or regime=memory_masked for the first task"
        )
    encoder = require_tokens(model, regime="extension", mask=True)
    found = [read_adapter(source) for source in earlier]
    for adapter in found:
        if adapter.about["memory_norm"] != memory_norm:
            flag = str(adapter.about["memory_norm"]).lower()
            raise ConfigError(
                f"regime.memory_norm={str(memory_norm).lower()} differs from that of {adapter.path}; "
                f"all tasks of a model share it; use regime.memory_norm={flag}"
            )
    task = new_task(encoder, num_classes=num_classes, num_tokens=num_tokens, std=std, class_token=class_token)
    extended = join(encoder, found, [task])
    for index, adapter in enumerate(found):
        require_base(extended, str(adapter.about[BASE]), adapter.path)
        extended.tasks[index].requires_grad_(False)
    extended.earlier = [adapter.digest for adapter in found]
    set_rates(extended, last_task_parts(extended), lr_scale=lr_scale, weight_decay=weight_decay)
    return extended
