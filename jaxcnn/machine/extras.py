"""The optional packages, and which extra of `pip install 'jaxcnn[…]'` brings each."""

from importlib import util

from jaxcnn.config import UserError

EXTRAS = {
    "tfds": ("tensorflow_datasets", "tensorflow"),
    "sweep": ("optuna", "cmaes", "submitit"),
    "report": ("matplotlib", "jinja2"),
    "tensorboard": ("tensorboardX",),
}


class MissingExtra(UserError):
    """A package that only an extra brings is not installed."""


def need(extra: str, what: str, *packages: str) -> None:
    """Refuse to begin `what` without the packages of an extra, or those named of them.

    Raises:
      MissingExtra: one is not installed.
    """
    for package in packages or EXTRAS[extra]:
        if util.find_spec(package) is None:
            raise MissingExtra(_line(what, package, extra))


def missing(error: Exception, what: str = "this") -> Exception:
    """The same error as one line that names what to install, where it is that an extra's package is absent."""
    absent = (getattr(error, "name", None) or "").partition(".")[0]
    for extra, packages in EXTRAS.items():
        if isinstance(error, ModuleNotFoundError) and absent in packages:
            return MissingExtra(_line(what, absent, extra))
    return error


def _line(what: str, package: str, extra: str) -> str:
    return f"{what} needs {package}, which is not installed: pip install 'jaxcnn[{extra}]'"
