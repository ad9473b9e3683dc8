"""A NaViT has no foreign names, and says so."""

import pytest

from tests.tiny_navit import tiny_navit
from vitexp.checkpoint.load import export_names
from vitexp.checkpoint.names.navit import ORIGINS
from vitexp.errors import CheckpointError


def test_there_is_none():
    assert ORIGINS == ()
    with pytest.raises(CheckpointError, match=r"timm has no NaViT .*; use to=safetensors or to=onnx"):
        export_names(tiny_navit())
