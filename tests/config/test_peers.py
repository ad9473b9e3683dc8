"""Words of other libraries lead to what is typed here; and what they lead to is there."""

import pytest

from vitexp.cli import main
from vitexp.config.compose import compose, flatten, options
from vitexp.config.peers import KEYS, OPTIONS
from vitexp.config.schema import ALIASES, GROUPS


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--lr 1e-3", "type lr=1e-3"),
        ("--epochs=5", "type epochs=5"),
        ("--batch-size 64", "type bs=64"),
        ("--learning_rate=0.1", "type lr=0.1"),
        ("--fast", "type fast=VALUE"),
        ("regime=linear_probe", "type regime=head"),
        ("regime=finetune", "type regime=full"),
        ("regime=frozen", "type regime=head"),
        ("attention=flash", "type attention=softmax"),
        ("attention=sdpa", "type attention=softmax"),
        ("attention=linear", "type attention=separable"),
        ("model=vit_small_patch16_224", "type model=vit_s16"),
        ("model=vit_small_patch16_224.augreg_in21k", "type model=vit_s16"),
        ("model=resnet50", "model=timm model.name=resnet50"),
        ("trainer.max_epochs=3", "type epochs=3"),
        ("batch_size=32", "type bs=32"),
        ("gpus=2", "type trainer.devices=2"),
        ("seed=1 train", "'train' is a verb and stands first"),
        ("run=last evaluate", "vitexp evaluate"),
        ("train train", "'train' is a verb and stands first"),
    ],
)
def test_a_word_of_a_peer_is_answered_with_what_to_type(typed: str, said: str, capsys) -> None:
    assert main(typed.split()) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_help_of_a_verb_behind_the_flag(capsys) -> None:
    assert main(["--help", "train"]) == 0
    assert "vitexp train --cfg job" in capsys.readouterr().out


def test_what_they_lead_to_is_there() -> None:
    known = {*flatten(compose(["data=cifar100"])), *ALIASES, *GROUPS}
    assert set(KEYS.values()) <= known
    assert not set(KEYS) & known
    for group, words in OPTIONS.items():
        assert set(words.values()) <= set(options(group))
        assert not set(words) & set(options(group))
