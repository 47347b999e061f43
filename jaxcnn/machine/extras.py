"""The optional packages, and the extra of `pip install 'jaxcnn[…]'` that installs each."""

from importlib import metadata, util

from jaxcnn.config import UserError

EXTRAS = {
    "tfds": ("tensorflow_datasets", "tensorflow"),
    "sweep": ("optuna", "cmaes", "submitit"),
    "report": ("matplotlib", "jinja2"),
    "tensorboard": ("tensorboardX",),
    "parquet": ("pyarrow",),
    "tiff": ("tifffile",),
    "jpeg": ("simplejpeg",),
    "explain": ("sklearn", "skimage"),
    "compress": ("zstandard",),
    "detect": ("faster_coco_eval",),
    "safetensors": ("safetensors",),
    "onnx": ("onnx", "onnxruntime"),
    "litert": ("ai_edge_litert",),
    "hub": ("huggingface_hub",),
    "serve": ("python_multipart", "starlette", "uvicorn"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
}


def version(package: str) -> str | None:
    """The version of an installed package; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


class MissingExtra(UserError):
    """Raised when a package of an optional extra is not installed."""


def need(extra: str, what: str, *packages: str) -> None:
    """Refuse to start `what` unless `packages` (by default, all packages of the extra) are installed.

    Raises:
      MissingExtra: a package is not installed.
    """
    for package in packages or EXTRAS[extra]:
        if util.find_spec(package) is None:
            raise MissingExtra(_line(what, package, extra))


def missing(error: Exception, what: str = "this") -> Exception:
    """A one-line MissingExtra that names the extra to install, if `error` is its missing package; else `error`."""
    absent = (getattr(error, "name", None) or "").partition(".")[0]
    for extra, packages in EXTRAS.items():
        if isinstance(error, ModuleNotFoundError) and absent in packages:
            return MissingExtra(_line(what, absent, extra))
    return error


def _line(what: str, package: str, extra: str) -> str:
    if extra == "tfds" and package != "tensorflow" and util.find_spec("tensorflow") is not None:
        extra = "tfds-only"  # never a second TensorFlow, such as `tensorflow` beside `tensorflow-cpu`
    return f"{what} needs {package}, which is not installed: pip install 'jaxcnn[{extra}]'"
