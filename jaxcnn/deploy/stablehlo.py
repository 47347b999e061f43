"""StableHLO files: what `jax.export` serialises, for CPU, CUDA and TPU at once and any batch size.

Beside the file lies <file>.json with its facts and its SHA-256, by which a damaged one is refused. JAX alone reads it:
`jax.export.deserialize(path.read_bytes()).call(images)`.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcnn.deploy import beside, predictor
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
    beside.write(path, bytes(content), predictor.facts(trained))


def read(path: pathlib.Path) -> tuple[Callable[[np.ndarray], np.ndarray], dict[str, Any]]:
    """The function of a file, compiled for this machine at each new batch size, and its facts.

    Raises:
      UserError: it cannot be read, or is not the file that was written with its facts.
    """
    from jax import export

    content, facts = beside.read(path)
    call = jax.jit(export.deserialize(bytearray(content)).call)
    return lambda images: np.asarray(call(images)), facts
