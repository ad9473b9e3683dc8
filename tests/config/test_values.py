"""Values that no command could use are refused where it is composed."""

import pytest
from omegaconf import OmegaConf

from vitexp.config.compose import compose
from vitexp.config.values import check_values
from vitexp.errors import ConfigError


@pytest.mark.parametrize("key", ["data.root", "outputs"])
@pytest.mark.parametrize("path", ["a\nb", "a\x1bb", "\udcff", "x" * 300, "a/" * 3000])
def test_a_folder_that_no_page_could_name_is_refused_before_a_run(key: str, path: str) -> None:
    cfg = compose(["data=folder"])
    OmegaConf.update(cfg, key, path)
    with pytest.raises(ConfigError, match=rf"^{key}="):
        check_values(cfg)
