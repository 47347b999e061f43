"""jaxcnn: CNNs on images in JAX, for six tasks, from one CPU core to many GPU hosts.

    import jaxcnn
    config = jaxcnn.config("resnet50", data="folder:photos", epochs=5)  # a recipe and what differs
    run = jaxcnn.train(config, "runs/photos")                           # the same call continues an interrupted run
    run.summary; run.records(); run.curves()                            # shown as tables and pictures in a notebook
    run.evaluate("test"); run.predict(images)                           # arrays, paths, PIL images, iterators
    run = jaxcnn.load("runs/photos"); logits = run.network(images)

`docs/python.md` has every call. Nothing heavy is imported before the first call. `jaxcnn.config`, `jaxcnn.doctor` and
`jaxcnn.train` are also the packages of these names.
"""

import importlib
import types

TYPE_CHECKING = False  # equal to that of typing, whose import would take most of the time
if TYPE_CHECKING:
    import inspect
    from typing import Any

    from jaxcnn.api.configs import config as config
    from jaxcnn.api.ensemble import Ensemble as Ensemble
    from jaxcnn.api.ensemble import ensemble as ensemble
    from jaxcnn.api.model_table import summary as summary
    from jaxcnn.api.network import Network as Network
    from jaxcnn.api.rates import find_rate as find_rate
    from jaxcnn.api.reports import doctor as doctor
    from jaxcnn.api.reports import report as report
    from jaxcnn.api.run import Run as Run
    from jaxcnn.api.run import load as load
    from jaxcnn.api.sweeps import sweep as sweep
    from jaxcnn.api.training import train as train
    from jaxcnn.config.errors import ConfigError as ConfigError
    from jaxcnn.config.errors import UserError as UserError
    from jaxcnn.train.hooks import Evaluation as Evaluation
    from jaxcnn.train.hooks import Step as Step
    from jaxcnn.train.interrupts import Interrupted as Interrupted

__version__ = "0.1.0"

_PLACES = {
    "ConfigError": "jaxcnn.config.errors",
    "Ensemble": "jaxcnn.api.ensemble",
    "Evaluation": "jaxcnn.train.hooks",
    "Interrupted": "jaxcnn.train.interrupts",
    "Network": "jaxcnn.api.network",
    "Run": "jaxcnn.api.run",
    "Step": "jaxcnn.train.hooks",
    "UserError": "jaxcnn.config.errors",
    "ensemble": "jaxcnn.api.ensemble",
    "find_rate": "jaxcnn.api.rates",
    "load": "jaxcnn.api.run",
    "report": "jaxcnn.api.reports",
    "summary": "jaxcnn.api.model_table",
    "sweep": "jaxcnn.api.sweeps",
}
_CALLABLE = {"config": "jaxcnn.api.configs", "doctor": "jaxcnn.api.reports", "train": "jaxcnn.api.training"}

__all__ = [*_PLACES, *_CALLABLE]


def __getattr__(name: str) -> "Any":
    """Import a public name when it is first used."""
    if name in _CALLABLE:
        return importlib.import_module(f"{__name__}.{name}")  # a package that can be called
    if name in _PLACES:
        value = getattr(importlib.import_module(_PLACES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class CallablePackage(types.ModuleType):
    """A package with the name of a public function; a call of the package calls the function."""

    @property
    def _function(self) -> "Any":
        name = self.__name__.rpartition(".")[2]
        return getattr(importlib.import_module(_CALLABLE[name]), name)

    @property
    def __signature__(self) -> "inspect.Signature":
        import inspect

        return inspect.signature(self._function)

    def __call__(self, *args: "Any", **kwargs: "Any") -> "Any":
        """Call the function; `jaxcnn.api` has its help."""
        return self._function(*args, **kwargs)
