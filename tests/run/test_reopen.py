"""A run's configuration for another verb: the images as its model was trained on them."""

import pytest

from vitexp.config.compose import compose
from vitexp.run.folder import Run
from vitexp.run.reopen import reopen


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = Run(tmp_path_factory.mktemp("run"))
    changes = ("data.crop_pct=0.5", "data.interpolation=lanczos", "size=48", "data.mean=[0.1,0.2,0.3]")
    made.keep_config(compose(["data=fake", *changes]))
    return made


def test_other_data_is_cropped_as_the_run_was(run: Run) -> None:
    words = ["data=imagenet"]
    data = reopen(run, words, compose(words), allowed=("data", "data."), verb="evaluate").data
    assert (data.crop_pct, data.interpolation, data.image_size) == (0.5, "lanczos", 48)
    assert data.mean == [0.1, 0.2, 0.3]
    assert data.num_classes == 1000


def test_unless_it_is_asked_for(run: Run) -> None:
    words = ["data.crop_pct=0.8", "data=imagenet"]
    data = reopen(run, words, compose(words), allowed=("data", "data."), verb="evaluate").data
    assert (data.crop_pct, data.interpolation) == (0.8, "lanczos")
