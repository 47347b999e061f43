"""The nonlinearities of `config.model.activation`."""

from collections.abc import Callable

import flax.linen as nn
import jax
from jaxtyping import Array, Float

import jaxcnn.config as config

Activation = Callable[[jax.Array], jax.Array]


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x times the normal distribution function at x, by erf and not tanh: Hendrycks & Gimpel 2016, arXiv:1606.08415."""
    return nn.gelu(x, approximate=False)


# leaky_relu: slope 0.01 below 0 (Maas et al. 2013); elu: alpha 1 (Clevert et al. 2016, arXiv:1511.07289); silu: x times
# its logistic function (Ramachandran et al. 2017, arXiv:1710.05941); hardswish: Howard et al. 2019, arXiv:1905.02244;
# mish: Misra 2020, arXiv:1908.08681.
ACTIVATIONS: dict[str, Activation] = {
    "relu": nn.relu,
    "leaky_relu": nn.leaky_relu,
    "elu": nn.elu,
    "gelu": gelu,
    "silu": nn.silu,
    "hardswish": nn.hard_swish,
    "mish": jax.nn.mish,
}


def activation(model: config.Model) -> Activation:
    """The activation function that the options of a network name."""
    return ACTIVATIONS[model.activation]
