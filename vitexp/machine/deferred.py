"""Packages that run at their first use: half of what Lightning imports is not needed for a first step.

Lightning asks `torchmetrics` for its version and two classes, and the whole of it, its metrics of images, audio and
text, imports torchvision, scipy.signal and transformers. It names a class and a decorator of `torch._dynamo`, whose
import is that of the compiler. Here such a package is imported without running; the few names in `_EARLY` are answered
without it, and any other name runs it as it would have run.
"""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from threading import RLock
from types import FunctionType, ModuleType

_DYNAMO = "torch._dynamo"


def install() -> None:
    """Defer, in this process, the packages of `_EARLY` that are not imported yet."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def is_pending(package: str) -> bool:
    """Whether a package has not run in this process."""
    module = sys.modules.get(package)
    loader = None if module is None or module.__spec__ is None else module.__spec__.loader
    return module is None or (isinstance(loader, _Deferred) and not loader.done)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.startswith(f"{_DYNAMO}."):
            return _ran_before(fullname)
        spec = PathFinder.find_spec(fullname, path, target) if fullname in _EARLY else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Deferred(spec.loader)
        return spec


def _ran_before(name: str) -> ModuleSpec | None:
    """The compiler's modules import each other and rely on the order in which the package does: it runs first."""
    package = sys.modules[_DYNAMO]
    loader = package.__spec__.loader if package.__spec__ is not None else None
    if isinstance(loader, _Deferred):
        loader.run(package)
    return ModuleSpec(name, _Loaded(sys.modules[name])) if name in sys.modules else None


class _Loaded(Loader):
    """Hands out a module that was imported while it was looked for."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module as it is."""
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """Let it keep its own spec; it has run."""
        module.__spec__ = self._spec


class _Deferred(Loader):
    """Makes a module that runs when a name is asked for that `_EARLY` does not have."""

    def __init__(self, inner: Loader) -> None:
        self._inner, self._lock = inner, RLock()
        self._running = self.done = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)  # get_source and so on

    def exec_module(self, module: ModuleType) -> None:
        """Give the module the means to run, and no more."""
        self._answering = partial(self._answer, module)
        vars(module).update(__getattr__=self._answering, __dir__=partial(self._names, module))
        if module.__name__ in _FIRST:
            import_module(_FIRST[module.__name__])

    def _answer(self, module: ModuleType, name: str) -> object:
        early = _EARLY[module.__name__].get(name)
        if early is not None and not (self.done or self._running):
            return early()
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)
        if module.__name__ != _DYNAMO and find_spec(f"{module.__name__}.{name}") is not None:
            return import_module(f"{module.__name__}.{name}")
        self.run(module)
        try:
            return vars(module)[name]
        except KeyError:
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}") from None

    def _names(self, module: ModuleType) -> list[str]:
        self.run(module)
        return sorted(vars(module))

    def run(self, module: ModuleType) -> None:
        """Run the module as it would have run when it was imported; once."""
        with self._lock:
            if self.done or self._running:  # by another thread meanwhile, or it asks for a name while it runs
                return
            self._running = True
            try:
                del module.__dir__
                self._inner.exec_module(module)
                self.done = True
            finally:
                self._running = False
            if vars(module).get("__getattr__") is self._answering:
                del module.__getattr__


def _metric(module: str, name: str) -> object:
    return vars(import_module(f"torchmetrics.{module}"))[name]


class _OptimizedType(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return not is_pending(_DYNAMO) and isinstance(instance, import_module(_DYNAMO).OptimizedModule)


class _OptimizedModule(metaclass=_OptimizedType):
    """In place of torch's class: until the compiler has run, nothing is compiled."""


def _disable(fn: object = None, recursive: bool = True, **given: object) -> object:
    """In place of the compiler's decorator: a function of it is the plain one until the compiler has run."""
    if fn is None:
        return lambda fn: _disable(fn, recursive, **given)
    if not isinstance(fn, FunctionType):
        return import_module(_DYNAMO).eval_frame._disable(fn, recursive, **given)
    function, disabled = fn, list[Callable[..., object]]()

    @wraps(function)
    def call(*args: object, **kwargs: object) -> object:
        if is_pending(_DYNAMO):
            return function(*args, **kwargs)
        if not disabled:
            disabled.append(import_module(_DYNAMO).disable(function, recursive, **given))
        return disabled[0](*args, **kwargs)

    return call


# Package -> the module of it that comes first: this one and torchmetrics.metric import each other.
_FIRST = {"torchmetrics": "torchmetrics.utilities"}
# Package -> the names that are answered without running it.
_EARLY: Mapping[str, Mapping[str, Callable[[], object]]] = {
    "torchmetrics": {
        "__version__": lambda: import_module("torchmetrics.__about__").__version__,
        "_logger": lambda: logging.getLogger("torchmetrics"),
        "Metric": partial(_metric, "metric", "Metric"),
        "MetricCollection": partial(_metric, "collections", "MetricCollection"),
        "MeanMetric": partial(_metric, "aggregation", "MeanMetric"),
    },
    "torchmetrics.functional": {},
    # A step asks for a break in the graph, of which there is none.
    _DYNAMO: {
        "OptimizedModule": lambda: _OptimizedModule,
        "disable": lambda: _disable,
        "graph_break": lambda: lambda: None,
    },
}
