"""StableHLO files: what `jax.export` serialises, for CPU, CUDA and TPU at once and any batch size.

Beside the file lies <file>.json with its facts and its SHA-256, by which a damaged one is refused. JAX alone reads it:
`jax.export.deserialize(path.read_bytes()).call(images)`.
"""

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcnn.config import UserError
from jaxcnn.deploy import predictor
from jaxcnn.machine import json_text, whole_files
from jaxcnn.text import shown
from jaxcnn.train import workdir
from jaxcnn.train.trained import Trained

PLATFORMS = ("cpu", "cuda", "tpu")


def write(trained: Trained, path: pathlib.Path) -> None:
    """Write a network, and its facts beside it.

    Raises:
      UserError: the file cannot be written.
    """
    from jax import export

    (batch,) = export.symbolic_shape("batch")
    image = jax.ShapeDtypeStruct((batch, *trained.spec.image_shape), trained.spec.image_dtype)
    predict = jax.jit(predictor.of(trained))
    content = export.export(predict, platforms=PLATFORMS)(image).serialize()
    facts = predictor.facts(trained) | {"sha256": json.dumps(hashlib.sha256(content).hexdigest())}
    try:
        whole_files.write(path, content)
        workdir.write_json(_beside(path), {name: json_text.parse_or_keep(value) for name, value in facts.items()})
    except OSError as error:
        raise UserError(f"{shown(str(path))} cannot be written: {error.strerror}") from error


def read(path: pathlib.Path) -> tuple[Callable[[np.ndarray], np.ndarray], dict[str, Any]]:
    """The function of a file, compiled for this machine at each new batch size, and its facts.

    Raises:
      UserError: it cannot be read, or is not the file that was written with its facts.
    """
    from jax import export

    try:
        content, facts = path.read_bytes(), json_text.parse(_beside(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{shown(str(error.filename))} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{shown(str(_beside(path)))} is damaged; export the run again") from error
    if not isinstance(facts, dict) or facts.get("sha256") != hashlib.sha256(content).hexdigest():
        raise UserError(f"{shown(str(path))} is not the file that {_beside(path).name} tells of; export the run again")
    call = jax.jit(export.deserialize(bytearray(content)).call)
    return lambda images: np.asarray(call(images)), facts


def _beside(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.name}.json")
