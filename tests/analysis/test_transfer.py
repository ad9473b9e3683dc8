"""Transfer asks for each size with its window, and says what it cannot do."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from tests.analysis.subjects import subject
from tests.tiny import tiny_vit
from vitexp.analysis.transfer import Transfer, trained_windows
from vitexp.config.compose import compose
from vitexp.errors import ConfigError
from vitexp.verb.measure import _changed


def build(sizes: list[int], windows: list[int], finetune_epochs: int = 0) -> Transfer:
    return Transfer(
        sizes=sizes,
        windows=windows,
        window_key="model.window.size",
        pretrained_key="model.window.pretrained_size",
        finetune_epochs=finetune_epochs,
    )


def test_each_size_is_tried_with_its_window_and_tuned(tmp_path: Path) -> None:
    asked: list[tuple[dict[str, Any], int]] = []

    def trial(changes: dict[str, Any], unset: dict[str, Any] | None = None, epochs: int = 0) -> float:
        asked.append((dict(changes), epochs))
        return 0.5 + 0.1 * epochs

    analysis = build([8, 16], [4, 8], finetune_epochs=2)
    measured = analysis.measure(replace(subject(tiny_vit()), trial=trial))
    first = {"data.image_size": 8, "model.window.size": 4}
    assert asked[:2] == [(first, 0), (first, 2)]
    assert analysis.summary(measured)["16px_window8/top1_tuned"] == pytest.approx(0.7)
    assert analysis.rows(measured)[0] == {"size": 8, "window": 4, "top1": 0.5, "top1_tuned": 0.7}
    analysis.draw({"trained": measured}, tmp_path / "transfer.png", "tiny")
    assert (tmp_path / "transfer.svg").is_file()


def test_lists_of_other_lengths_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"each size has its window; give as many"):
        build([8, 16], [4])


def test_windows_of_stages() -> None:
    def stage(side: int) -> nn.Module:
        made, block = nn.Module(), nn.Identity()
        block.__dict__["windows"] = SimpleNamespace(window=(side, side))
        made.blocks = nn.ModuleList([block])
        return made

    model = nn.Module()
    model.stages = nn.ModuleList([stage(8), stage(4)])
    assert trained_windows(model) == [8, 4]
    model.stages = nn.ModuleList([stage(8)])
    assert trained_windows(model) == [8]
    model.stages.append(nn.Module())
    model.stages[1].blocks = nn.ModuleList([nn.Identity()])
    assert trained_windows(model) is None, "a stage without windows"
    assert trained_windows(tiny_vit()) is None


def test_the_model_stays_as_it_was_trained_but_for_the_size() -> None:
    cfg = compose(["data=cifar10", "model=vit_s16", "analysis=transfer"])
    other = _changed(cfg, {"data.image_size": 224}, {"model.window.pretrained_size": None})
    assert other.model.image_size == 224
    assert other.model.stem.patch_size == cfg.model.stem.patch_size == 4
    with pytest.raises(ConfigError, match=r"model\.window\.size is no key of model=vit_s16"):
        _changed(cfg, {"model.window.size": 4}, {})
