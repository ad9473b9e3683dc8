"""The pictures show what the test saw: every pair counted, the surest mistakes kept, across batches."""

from pathlib import Path
from types import SimpleNamespace

import torch
from PIL import Image
from torch import Tensor

from vitexp.callback import pictures as module
from vitexp.callback.pictures import Pictures

LEAD = SimpleNamespace(is_global_zero=True)


def logits(predicted: list[int], margins: list[float], classes: int = 3) -> Tensor:
    """Rows that predict `predicted`, more surely the larger the margin."""
    rows = torch.zeros(len(predicted), classes)
    rows[torch.arange(len(predicted)), torch.tensor(predicted)] = torch.tensor(margins)
    return rows


def tell(pictures: Pictures, labels: list[int], rows: Tensor) -> None:
    images = torch.arange(len(labels)).float().view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    pictures.on_test_batch_end(LEAD, SimpleNamespace(logits=rows), None, (images, torch.tensor(labels)), 0)


def test_every_pair_of_truth_and_prediction_is_counted() -> None:
    pictures = Pictures()
    pictures.on_test_start(LEAD, None)
    tell(pictures, [0, 1, 2], logits([0, 2, 2], [1.0, 1.0, 1.0]))
    tell(pictures, [1, 1], logits([2, 1], [1.0, 1.0]))
    assert pictures.confusion is not None
    assert pictures.confusion.tolist() == [[1, 0, 0], [0, 1, 2], [0, 0, 1]]


def test_the_surest_mistakes_are_kept(monkeypatch) -> None:
    monkeypatch.setattr(module, "NUM_SHOWN", 2)
    pictures = Pictures()
    tell(pictures, [0, 0, 0], logits([1, 2, 0], [1.0, 3.0, 9.0]))
    tell(pictures, [1, 1], logits([0, 1], [2.0, 9.0]))
    kept = pictures._mistakes
    assert kept["predicted"].tolist() == [2, 0]
    assert kept["true"].tolist() == [0, 1]
    assert kept["confidence"].diff().item() < 0
    assert kept["images"][:, 0, 0, 0].tolist() == [1.0, 0.0], "each with its image"


def test_a_second_test_starts_from_nothing() -> None:
    pictures = Pictures()
    tell(pictures, [0], logits([1], [1.0]))
    pictures.on_test_start(LEAD, None)
    assert pictures.confusion is None
    assert not pictures._mistakes


def test_sets_of_right_answers_have_no_confusion() -> None:
    pictures = Pictures()
    answers = torch.tensor([[True, True, False]])
    pictures.on_test_batch_end(LEAD, SimpleNamespace(logits=None), None, (torch.zeros(1, 3, 4, 4), answers), 0)
    assert pictures.confusion is None


def test_the_first_batch_is_kept_as_the_model_sees_it(tmp_path: Path) -> None:
    pictures = Pictures()
    for index in range(2):
        images = torch.full((4, 3, 8, 8), float(index))
        pictures.on_train_batch_start(LEAD, None, (images, torch.tensor([0, 1, 2, 0])), index)
    assert pictures.batch is not None
    assert pictures.batch[0].unique().tolist() == [0.0]
    tell(pictures, [0, 1], logits([1, 1], [1.0, 1.0]))
    data = SimpleNamespace(class_names=["a", "b", "c"], mean=[0.5] * 3, std=[0.25] * 3)
    written = pictures.draw(tmp_path, data, title="run")
    assert [path.name for path in written] == ["batch.png", "confusion.png", "mistakes.png"]
    for path in written:
        with Image.open(path) as image:
            assert image.width > 100
