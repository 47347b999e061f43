"""Optimisers from optax, built around hyper-parameters that are traced values."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float32, Int32

from jaxcnn.config import Optim, UserError
from jaxcnn.learn import muon
from jaxcnn.learn.state import Hyper
from jaxcnn.machine import plugins
from jaxcnn.models.network import Network

Scalar = Float32[Array, ""]
Update = tuple[optax.Updates, Any]  # updates, and the new state

LARS_EPSILON = 1e-9
CLASSIFIER = Network.HEAD  # the last layer of every network


def decay_mask(optim: Optim) -> Callable[[optax.Params], optax.Params]:
    """A function that maps parameters to a tree of bools, True for the arrays that get weight decay.

    Kernels and other arrays of two or more dimensions get it; BatchNorm's scales and all biases get it only with
    `decay_norm_and_bias` (excluding them follows Goyal et al. 2017, arXiv 1706.02677).
    """

    def mask(params: optax.Params) -> optax.Params:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: optim.decay_norm_and_bias or path[-1].key == "kernel" or jnp.ndim(leaf) > 1, params
        )

    return mask


def make_optimizer(
    optim: Optim,
    hyper: Hyper,
    learning_rate: Scalar,
    scale: optax.GradientTransformation | None = None,
    step: Int32[Array, ""] | int = 0,
) -> optax.GradientTransformation:
    """The optimiser for one step, at this step's `learning_rate`.

    It is built again in every step, inside the traced function, so `hyper` and `learning_rate` are inputs of the
    compiled program; the structure of its state depends only on `optim`.

    Args:
      optim: the name and the static fields of the optimiser.
      hyper: the traced hyper-parameters.
      learning_rate: the learning rate of this step.
      scale: applies the learning-rate factors of layers (`learn.rates.scale`); None: all are 1.
      step: the number of steps before this one.
    """
    clip = optax.clip_by_global_norm(optim.clip_norm) if optim.clip_norm else optax.identity()
    scale = scale or optax.identity()
    if optim.name == "muon":
        return optax.chain(clip, _muon(optim, hyper, learning_rate, scale, step))
    # Scaled outside the chain, so that the state has the same structure with and without it.
    make = OPTIMIZERS.get(optim.name, _own)
    return _then(optax.chain(clip, make(optim, hyper, learning_rate)), scale)


def _then(inner: optax.GradientTransformation, last: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner` followed by `last`, which has no state."""

    def update(grads: optax.Updates, state: optax.OptState, params: optax.Params | None = None) -> Update:
        updates, state = inner.update(grads, state, params)
        return last.update(updates, optax.EmptyState(), params)[0], state

    return optax.GradientTransformation(inner.init, update)


def _sgd(optim: Optim, hyper: Hyper, learning_rate: Scalar) -> optax.GradientTransformation:
    """SGD with (Nesterov) momentum and L2 weight decay in the gradient, as in PyTorch (Sutskever et al. 2013).

    Equal to `optax.add_decayed_weights` followed by `optax.sgd`, except for rounding. There, the decayed gradient is
    read twice, so XLA writes it to memory. Here, Nesterov's sum has another order and shares no part with the momentum.
    """

    def init(params: optax.Params) -> optax.TraceState:
        return optax.TraceState(optax.tree.zeros_like(params))

    def update(grads: optax.Updates, state: optax.TraceState, params: optax.Params | None = None) -> Update:
        decays: Any = jax.tree.map(
            lambda param, decayed: hyper.weight_decay * param if decayed else jnp.zeros_like(param),
            params,
            decay_mask(optim)(params),
        )
        trace = jax.tree.map(
            lambda grad, decay, trace: (grad + decay) + hyper.momentum * trace, grads, decays, state.trace
        )
        ahead = jax.tree.map(lambda grad, decay, trace: (grad + hyper.momentum * trace) + decay, grads, decays, trace)
        return ahead if optim.nesterov else trace, optax.TraceState(trace)

    return optax.chain(optax.GradientTransformation(init, update), optax.scale_by_learning_rate(learning_rate))


def _adam(optim: Optim, hyper: Hyper, learning_rate: Scalar) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2014, arXiv 1412.6980) with L2 weight decay in the gradient, as in PyTorch."""
    return optax.chain(
        optax.add_decayed_weights(hyper.weight_decay, decay_mask(optim)),
        optax.adam(learning_rate, hyper.momentum, optim.beta2, optim.epsilon),
    )


def _adamw(optim: Optim, hyper: Hyper, learning_rate: Scalar) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2017, arXiv 1711.05101)."""
    return optax.adamw(
        learning_rate,
        hyper.momentum,
        optim.beta2,
        optim.epsilon,
        weight_decay=hyper.weight_decay,
        mask=decay_mask(optim),
    )


def _lars(optim: Optim, hyper: Hyper, learning_rate: Scalar) -> optax.GradientTransformation:
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


def _lamb(optim: Optim, hyper: Hyper, learning_rate: Scalar) -> optax.GradientTransformation:
    """LAMB for large batches (You et al. 2019, arXiv 1904.00962)."""
    return optax.lamb(
        learning_rate,
        hyper.momentum,
        optim.beta2,
        optim.epsilon,
        weight_decay=hyper.weight_decay,
        mask=decay_mask(optim),
    )


def _muon(
    optim: Optim,
    hyper: Hyper,
    learning_rate: Scalar,
    scale: optax.GradientTransformation,
    step: Int32[Array, ""] | int,
) -> optax.GradientTransformation:
    """Muon for the kernels of convolutions, without weight decay; SGD with momentum for all other parameters.

    SGD's gradient is that of the loss times `optim.bias_gradient_factor` (or `classifier_gradient_factor`), plus the
    weight decay, so a sweep over the learning rate scales everything equally.
    """

    def sgd(factor: float) -> optax.GradientTransformation:
        inner = optax.chain(
            optax.scale(factor),
            optax.add_decayed_weights(hyper.weight_decay, decay_mask(optim)),
            optax.sgd(learning_rate, optim.sgd_momentum, nesterov=optim.nesterov),
        )
        return _then(inner, scale)

    of_kernels = muon.muon(
        learning_rate,
        hyper.momentum,
        nesterov=optim.nesterov,
        steps=optim.newton_schulz_steps,
        scale=scale,
        batched=optim.newton_schulz_batched,
        due=jnp.equal(step % optim.renormalize_every, 0) if optim.renormalize_every > 1 else None,
    )
    return optax.partition(
        {
            "kernel": of_kernels,
            "classifier": sgd(optim.classifier_gradient_factor),
            "bias": sgd(optim.bias_gradient_factor),
        },
        lambda params: muon.labels(params, CLASSIFIER),
    )


def _own(optim: Optim, hyper: Hyper, learning_rate: Scalar) -> optax.GradientTransformation:
    """An optimiser of optax or of the user, made by a function of `learning_rate`.

    The weight decay of the config and its mask are passed to it if it takes them; else the gradient gets the decay.
    """
    loaded = plugins.load("optimizers", optim.name)
    takes = loaded.takes or ("learning_rate",)
    if "learning_rate" not in takes:
        raise UserError(f"config.optim.name={optim.name!r}: it takes no learning_rate, as an optimiser must")
    decays = "weight_decay" in takes
    mask = decay_mask(optim)
    offered = {"learning_rate": learning_rate, "weight_decay": hyper.weight_decay}
    offered |= {"mask": mask, "weight_decay_mask": mask} if decays else {}
    made = loaded.with_those(offered)()
    if not isinstance(made, optax.GradientTransformation):
        raise UserError(f"config.optim.name={optim.name!r} gives a {type(made).__name__}, not an optax optimiser")
    if why := _unusable(made):
        raise UserError(f"config.optim.name={optim.name!r} cannot train here: {why}; choose another optimiser")
    return made if decays else optax.chain(optax.add_decayed_weights(hyper.weight_decay, mask), made)


def _unusable(made: optax.GradientTransformation) -> str:
    """Why the step cannot use an optimiser that it can make; empty if it can.

    It is tried on a small layer. Other failures there say nothing, as an optimiser may need layers of certain names.
    """
    params = {"classifier": {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}}
    try:
        state = jax.eval_shape(made.init, params)
        averaged = jax.tree.leaves(state, is_leaf=lambda part: type(part).__name__ == "ScheduleFreeState")
        if any(type(part).__name__ == "ScheduleFreeState" for part in averaged):
            return (
                "it trains other weights than the ones to evaluate (schedule-free); for an average of the weights, set "
                "config.optim.swa_from or ema_decay"
            )
        jax.eval_shape(made.update, params, state, params)
    except Exception as error:
        if isinstance(error, TypeError) and "required keyword-only argument" in str(error):
            return f"it needs the value of the loss, or a function of it, in each update ({error})"
    return ""


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
    "lars": _lars,
    "lamb": _lamb,
    "muon": _muon,
}
