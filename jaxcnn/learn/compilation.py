"""Compilation of the networks' programs, with options for XLA."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh


def jit(function: Callable[..., Any], mesh: Mesh, **arguments: Any) -> jax.stages.Wrapped:
    """`jax.jit` with the XLA options of the networks' programs for the devices of the mesh."""
    return jax.jit(function, compiler_options=_compiler_options(mesh.devices.flat[0].platform), **arguments)


@functools.cache
def _compiler_options(platform: str) -> dict[str, str] | None:
    """XLA options of the networks' programs.

    On CPU, run operations in the order that needs the least memory. XLA's default starts every operation that is ready,
    which keeps twice as many arrays alive and copies parameters instead of updating them in place; our operations are
    large enough to fill the cores one at a time.
    """
    if platform != "cpu":
        return None
    options = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    try:
        jax.jit(lambda: jnp.zeros(()), compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:  # an XLA that does not know the option
        return None
    return options
