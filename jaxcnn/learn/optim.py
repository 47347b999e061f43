"""Optimisers from optax, built around hyper-parameters that are traced values."""

from collections.abc import Callable

import jax
import optax

from jaxcnn.config import Optim
from jaxcnn.learn.state import Hyper

LARS_EPSILON = 1e-9


def decay_mask(optim: Optim) -> Callable[[optax.Params], optax.Params]:
    """A function from parameters to a tree of bools: which leaves get weight decay.

    Kernels always do; BatchNorm's scales and all biases only with `decay_norm_and_bias` (leaving them out is from
    Goyal et al. 2017, arXiv 1706.02677).
    """

    def mask(params: optax.Params) -> optax.Params:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: optim.decay_norm_and_bias or path[-1].key == "kernel", params
        )

    return mask


def make_optimizer(optim: Optim, hyper: Hyper, learning_rate: jax.Array) -> optax.GradientTransformation:
    """The optimiser for one step, at this step's `learning_rate` (float32 scalar).

    It is made anew in every step, inside the traced function, so `hyper` and `learning_rate` are inputs of the
    compiled program; the structure of its state depends on `optim` alone.
    """
    clip = optax.clip_by_global_norm(optim.clip_norm) if optim.clip_norm else optax.identity()
    return optax.chain(clip, OPTIMIZERS[optim.name](optim, hyper, learning_rate))


def _sgd(optim: Optim, hyper: Hyper, learning_rate: jax.Array) -> optax.GradientTransformation:
    """SGD with (Nesterov) momentum and L2 weight decay in the gradient, as PyTorch's (Sutskever et al. 2013)."""
    return optax.chain(
        optax.add_decayed_weights(hyper.weight_decay, decay_mask(optim)),
        optax.sgd(learning_rate, hyper.momentum, nesterov=optim.nesterov),
    )


def _adam(optim: Optim, hyper: Hyper, learning_rate: jax.Array) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2014, arXiv 1412.6980) with L2 weight decay in the gradient, as PyTorch's."""
    return optax.chain(
        optax.add_decayed_weights(hyper.weight_decay, decay_mask(optim)),
        optax.adam(learning_rate, hyper.momentum, optim.beta2, optim.epsilon),
    )


def _adamw(optim: Optim, hyper: Hyper, learning_rate: jax.Array) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2017, arXiv 1711.05101)."""
    return optax.adamw(
        learning_rate,
        hyper.momentum,
        optim.beta2,
        optim.epsilon,
        weight_decay=hyper.weight_decay,
        mask=decay_mask(optim),
    )


def _lars(optim: Optim, hyper: Hyper, learning_rate: jax.Array) -> optax.GradientTransformation:
    """LARS for large batches (You et al. 2017, arXiv 1708.03888); BatchNorm and biases take plain steps."""
    return optax.lars(
        learning_rate,
        weight_decay=hyper.weight_decay,
        weight_decay_mask=decay_mask(optim),
        trust_coefficient=optim.trust_coefficient,
        eps=LARS_EPSILON,
        trust_ratio_mask=decay_mask(optim),
        momentum=hyper.momentum,
        nesterov=optim.nesterov,
    )


def _lamb(optim: Optim, hyper: Hyper, learning_rate: jax.Array) -> optax.GradientTransformation:
    """LAMB for large batches (You et al. 2019, arXiv 1904.00962)."""
    return optax.lamb(
        learning_rate,
        hyper.momentum,
        optim.beta2,
        optim.epsilon,
        weight_decay=hyper.weight_decay,
        mask=decay_mask(optim),
    )


OPTIMIZERS = {"sgd": _sgd, "adam": _adam, "adamw": _adamw, "lars": _lars, "lamb": _lamb}
