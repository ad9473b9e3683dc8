"""What `vitexp list` says of models is what their configuration says."""

import pytest
from omegaconf import OmegaConf

from vitexp.cli import main
from vitexp.config.compose import compose, options
from vitexp.config.schema import REFERENCE
from vitexp.verb.list import compatibility, print_list, reference


@pytest.mark.parametrize("model", options("model"))
def test_figures_read_from_the_files_are_the_composed_ones(model: str) -> None:
    composed = OmegaConf.to_container(compose([f"model={model}"]).reference)
    assert {**dict.fromkeys(REFERENCE), **reference(model)} == composed


def test_the_list_of_models_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_list(["models"]) == 0
    text = capsys.readouterr().out
    assert "86,567,656" in text
    assert "in21k, 384 px" in text


def test_the_table_of_attentions_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "attention"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, *cells in compatibility()[1]:
        (line,) = [line for line in lines if name in line.split()]
        assert all(cell in line for cell in cells)
    assert any("Swin V2" in line and "EfficientViT" in line for line in lines)
