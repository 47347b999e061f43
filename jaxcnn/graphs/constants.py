"""Computes the parts of a trace that depend on constants alone while it becomes a graph; weights may be traced."""

import contextlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.config import UserError

Constant = np.ndarray | jax.Array  # a traced constant depends on the variables given to `lowering.lower`
BATCH = 4093  # a prime, which stands for any batch size while the function is traced


def placed(value: Constant, shape: tuple[int, ...], places: Sequence[int]) -> Constant:
    """A constant with the rank of a shape: its own dimensions are at `places`, all others have size 1."""
    sizes = [1] * len(shape)
    for size, place in zip(value.shape, places, strict=True):
        sizes[place] = size
    return value.reshape(sizes)


def computed(eqn: Any, given: list[Any], one_by_one: bool) -> list[Constant]:
    """The results of an operation on constants alone; `one_by_one` says that it treats each value by itself."""
    if one_by_one:
        sizes = np.broadcast_shapes(*(each.shape for each in given))
        whole = [_broadcast(each, sizes) for each in given]
    else:
        shapes = [variable.aval.shape for variable in eqn.invars]
        if any(size and size % BATCH == 0 for shape in shapes for size in shape):
            name = eqn.primitive.name
            raise UserError(f"this network has the operation {name!r} on constants for each image; use stablehlo")
        whole = [_broadcast(each, shape) for each, shape in zip(given, shapes, strict=True)]
    traced = any(isinstance(each, jax.Array) for each in given)
    with contextlib.nullcontext() if traced else jax.ensure_compile_time_eval():
        result = eqn.primitive.bind(*whole, **eqn.params)
    results = list(result) if eqn.primitive.multiple_results else [result]
    return results if traced else [np.asarray(each) for each in results]


def _broadcast(value: Constant, shape: tuple[int, ...]) -> Constant:
    return jnp.broadcast_to(value, shape) if isinstance(value, jax.Array) else np.broadcast_to(value, shape)
