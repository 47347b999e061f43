"""How XLA is asked to compile the networks' programs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh


def jit(function: Any, mesh: Mesh, **arguments: Any) -> Any:
    """`jax.jit` with the options of XLA for the networks' programs on the devices of the mesh."""
    return jax.jit(function, compiler_options=_compiler_options(mesh.devices.flat[0].platform), **arguments)


@functools.cache
def _compiler_options(platform: str) -> dict[str, str] | None:
    """Options of XLA for the networks' programs.

    On CPU, run operations in the order that needs the least memory. XLA's default starts whatever can run, which keeps
    twice as many arrays alive and copies parameters that are updated in place; our operations are wide enough to fill
    the cores one at a time.
    """
    if platform != "cpu":
        return None
    options = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    try:
        jax.jit(lambda: jnp.zeros(()), compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:  # an XLA that does not know the option
        return None
    return options
