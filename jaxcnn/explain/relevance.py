"""Layer-wise relevance propagation: an output is handed down to the pixels, layer by layer.

Bach et al. 2015 (doi 10.1371/journal.pone.0130140). A unit hands its relevance to its inputs in proportion to what each
contributed. Between layers this is what the gradient does, if relevance is value times gradient: ReLU, max-pools (all
to the largest), mean pools and sums keep it, and what is added, such as a bias or the shift of BatchNorm, takes its
share and keeps it. So only the gradient of convolutions and dense layers is replaced.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcnn.config import UserError
from jaxcnn.config.ranges import NonNegative
from jaxcnn.explain import kernels
from jaxcnn.explain.kernels import Product
from jaxcnn.explain.network import Images, Network, Ruled, Targets

NAME = "layer-wise relevance propagation"
_MORE = 4  # times the memory of a gradient, about


def lrp(network: Network, images: Images, target: Targets, *, gamma: NonNegative = 0.25) -> Images:
    """Relevance by the gamma rule: Montavon et al. 2019 (doi 10.1007/978-3-030-28954-6_10), section 10.2.

    Contributions of the sign of their sum count 1 + gamma times, so those that cancel each other out count less: gamma
    0 gives gradient times pixel, a large one the rule that leaves out all of the other sign. Values of either sign may
    come in, as in Andéol et al. 2021 (arXiv:2106.04923), so it does not matter whether BatchNorm is a layer of its own.
    The sum over an image is its output less what biases and shifts keep. Each of these counts once; in the paper, a
    bias counts 1 + gamma times like other contributions.

    Args:
      network, images, target: see `jaxcnn.explain.gradients`.
      gamma: at least 0.

    Raises:
      UserError: gamma is below 0, or a product with a kernel lies inside an operation such as a scan.
    """
    if gamma < 0:
        raise UserError(f"lrp: gamma={gamma} must be at least 0")
    devices = network.mesh.size if network.mesh is not None else 1
    rows = max(devices, network.rows // _MORE // devices * devices)
    ruled = dataclasses.replace(network, apply=_ByRule(network.apply, gamma), rows=rows)
    return jnp.asarray(images) * ruled.gradients(images, target)


@dataclasses.dataclass(frozen=True)
class _ByRule(Ruled):
    """A network whose gradient times its images is their relevance."""

    gamma: float

    def __call__(self, variables: Any, images: Any) -> Any:
        """Outputs of the network, whose gradient follows the rule."""
        return kernels.replaced(self.apply, lambda product: _layer(product, self.gamma), NAME)(variables, images)


def _layer(product: Product, gamma: float) -> Product:
    """A product whose gradient by the values is that of the gamma rule."""
    layer = jax.custom_vjp(product)

    def backward(inputs: tuple[Array, Array], dy: Float[Array, "..."]) -> tuple[Array, Array]:
        values, kernel = inputs
        up, down = jnp.maximum(kernel, 0), jnp.minimum(kernel, 0)
        above, below = jnp.maximum(values, 0), jnp.minimum(values, 0)

        def back(kernel: Array, dy: Array) -> Array:
            return jax.vjp(lambda values: product(values, kernel), values)[1](dy)[0]

        made = product(values, kernel)
        # What contributes to each output with its own sign.
        same = jnp.where(made > 0, product(above, up) + product(below, down), product(above, down) + product(below, up))
        total = made + gamma * same
        share = jnp.where(total != 0, dy * made / jnp.where(total != 0, total, 1), 0)
        to_up, to_down = jnp.where(made > 0, share, 0), jnp.where(made > 0, 0, share)
        more = jnp.where(values > 0, back(up, to_up) + back(down, to_down), back(down, to_up) + back(up, to_down))
        return back(kernel, share) + gamma * more, jnp.zeros_like(kernel)

    layer.defvjp(lambda values, kernel: (product(values, kernel), (values, kernel)), backward)
    return layer
