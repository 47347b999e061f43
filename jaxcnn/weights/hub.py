"""Weights of a repository of the Hugging Face Hub, through the package huggingface_hub."""

import json
import pathlib
from typing import Any

from jaxcnn.config import UserError
from jaxcnn.machine import extras, json_text
from jaxcnn.text import shown

WEIGHTS, FACTS = "model.safetensors", "config.json"
_OFFLINE = (
    f"without a network, give a copy of {WEIGHTS} as config.init.source=file:<path>, or set HF_HUB_CACHE to a cache "
    "that has the repository"
)


def fetch(repository: str) -> tuple[pathlib.Path, dict[str, str]]:
    """The file of weights of a repository, in the cache of the package, and the facts in its `config.json`.

    Args:
      repository: "owner/name", with "@revision" if wanted.

    Raises:
      UserError: it cannot be fetched.
    """
    check(repository)
    import huggingface_hub

    name, _, revision = repository.partition("@")

    def file(filename: str) -> pathlib.Path:
        return pathlib.Path(huggingface_hub.hf_hub_download(name, filename, revision=revision or None))

    try:
        path = file(WEIGHTS)
    except Exception as error:  # of the network, the package or the repository, of many kinds
        why = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"hub:{shown(repository)} could not be fetched ({why}); {_OFFLINE}") from error
    try:
        return path, _facts(json_text.parse(file(FACTS).read_text(encoding="utf-8")))
    except Exception:  # weights alone are enough
        return path, {}


def check(repository: str) -> None:
    """Raise MissingExtra, with the choices without a network, unless the packages that fetch and read are installed."""
    try:
        for extra in ("hub", "safetensors"):
            extras.need(extra, f"config.init.source='hub:{shown(repository)}'")
    except extras.MissingExtra as error:
        raise extras.MissingExtra(f"{error}; {_OFFLINE}") from None


def _facts(told: Any) -> dict[str, str]:
    """The normalisation and the class names in a config of timm, as in the metadata of our files.

    Networks of timm whose names begin with "tf_" have TensorFlow's epsilon of BatchNorm.
    """
    inner = told.get("pretrained_cfg", told)
    found = {name: inner[name] for name in ("mean", "std") if isinstance(inner.get(name), list)}
    if isinstance(labels := inner.get("label_names", told.get("label_names")), list):
        found["class_names"] = labels
    if str(told.get("architecture", "")).startswith("tf_"):
        found["norm"] = {"epsilon": 1e-3}
    return {name: json.dumps(value) for name, value in found.items()}
