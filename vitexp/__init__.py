"""vitexp: one command line for Vision Transformer experiments; in a notebook, the three functions below.

They are looked up on first use, so that `import vitexp` stays instant.
"""

from typing import TYPE_CHECKING, Any

from vitexp.machine import deferred

if TYPE_CHECKING:
    from vitexp.notebook import build_model as build_model
    from vitexp.notebook import compose as compose
    from vitexp.notebook import load_run as load_run

__version__ = "0.1.0"
deferred.install()
__all__ = ["__version__", "build_model", "compose", "load_run"]


def __getattr__(name: str) -> Any:
    if name not in ("build_model", "compose", "load_run"):
        raise AttributeError(f"module 'vitexp' has no attribute {name!r}; it has compose, build_model and load_run")
    from vitexp import notebook

    return getattr(notebook, name)
