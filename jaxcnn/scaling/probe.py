"""JAX's view of this machine, determined in a separate process, since the query starts a backend."""

from typing import Any

import jax

from jaxcnn.machine import cores
from jaxcnn.scaling import children


def look(_: dict[str, Any]) -> dict[str, Any]:
    """Backend, kind and number of the local devices, and the cores."""
    local = jax.local_devices()
    return {
        "backend": jax.default_backend(),
        "device_kind": local[0].device_kind,
        "devices": len(local),
        "cores": cores.usable(),
    }


if __name__ == "__main__":
    children.serve(look)
