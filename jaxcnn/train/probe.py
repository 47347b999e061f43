"""The linear probe: a classifier fitted to the features of a fixed network (`config.init.head="fitted"`)."""

import dataclasses
import time
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxcnn.config import UserError
from jaxcnn.data.batch import Constants
from jaxcnn.learn import rates
from jaxcnn.learn.network import head_of
from jaxcnn.learn.state import State
from jaxcnn.machine import mesh as meshes
from jaxcnn.text import counted
from jaxcnn.train import features, seals
from jaxcnn.train.setup import Setup
from jaxcnn.train.trained import Trained

# Penalties on half the squared norm of the kernel, for standardised features; the strongest first.
PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
STEPS = 500  # largest number of steps of L-BFGS for each penalty
Kernel = Float[np.ndarray, "k d"]
Bias = Float[np.ndarray, " k"]


def fitted(found: Setup, state: State, constants: Constants, say: Callable[[str], None]) -> State:
    """A new state with the best classifier for the features of the training images, which are not augmented.

    Multinomial logistic regression by L-BFGS. Without `init.penalty`, the penalty is that of the highest accuracy on
    validation; of equal ones, the strongest.

    Raises:
      UserError: the network does not end with a dense layer that has a bias, or there are several processes.
    """
    began, config, spec, splits = time.monotonic(), found.config, found.spec, found.splits
    if jax.process_count() > 1:
        raise UserError("config.init.head='fitted' is for one process; run it on one host")
    head = head_of(spec)
    shapes = {rates.path_of(path): leaf.shape for path, leaf in jax.tree_util.tree_flatten_with_path(state.params)[0]}
    mine = {path.rpartition("/")[2]: shape for path, shape in shapes.items() if path.startswith(f"{head}/")}
    if mine.keys() != {"kernel", "bias"} or len(mine["kernel"]) != 2:
        raise UserError(
            f"config.init.head='fitted' is for a network that ends with a dense layer with a bias, unlike "
            f"{config.model.name}"
        )
    whole = dataclasses.replace(spec, shard_optimizer=False, shard_params=False)
    everywhere = meshes.replicated(found.mesh)
    network = Trained(
        config=config,
        spec=whole,
        mesh=found.mesh,
        step=0,
        weights="last",
        variables=jax.device_put(state.variables(), everywhere),
        constants=jax.device_put(constants, everywhere),
        class_names=splits.class_names,
        fitted={},
    )
    seen = features.of_split(network, splits.train)
    held_out = None if splits.val is None else features.of_split(network, splits.val)
    penalties = (config.init.penalty,) if config.init.penalty else PENALTIES
    kernel, bias, penalty, accuracy = choose(
        seen.values,
        seen.targets,
        None if held_out is None else (held_out.values, held_out.targets),
        len(splits.class_names),
        penalties,
    )
    told = (
        "" if accuracy is None else f", {100 * accuracy:.2f} % of {counted(len(splits.val or ()), 'validation image')}"
    )
    say(
        f"  classifier fitted to {counted(len(seen.names), 'training image')} in {time.monotonic() - began:.1f} s: "
        f"penalty {penalty:g}{told}"
    )
    new = {f"{head}/kernel": kernel.astype(np.float32), f"{head}/bias": bias.astype(np.float32)}

    ema = state.ema and {**state.ema, "params": seals.replaced(state.ema["params"], new)}
    return dataclasses.replace(state, params=seals.replaced(state.params, new), ema=ema)


def choose(
    values: features.Rows,
    labels: Int[np.ndarray, " n"],
    held_out: tuple[features.Rows, Int[np.ndarray, " m"]] | None,
    classes: int,
    penalties: tuple[float, ...],
) -> tuple[Kernel, Bias, float, float | None]:
    """The classifier of the penalty that is best on held-out images, this penalty, and its accuracy there.

    Args:
      values: features of the training images.
      labels: their classes.
      held_out: features and labels of validation images; None if there is only one penalty.
      classes: k.
      penalties: each fit starts from the one before.
    """
    mean, std = values.mean(0, dtype=np.float64), values.std(0, dtype=np.float64)
    std = np.where(std > 1e-6 * max(std.max(), 1e-30), std, 1)  # a constant feature is left as it is
    standard = (values - mean) / std
    start, best = None, None
    for penalty in penalties:
        start = logistic(standard, labels, classes, penalty, start)
        kernel = start[0] / std
        bias = start[1] - kernel @ mean
        accuracy = None
        if held_out is not None:
            accuracy = float(((held_out[0] @ kernel.T + bias).argmax(1) == held_out[1]).mean())
        if best is None or (accuracy or 0) > (best[3] or 0):
            best = kernel, bias, penalty, accuracy
    assert best is not None
    return best


def logistic(
    values: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    classes: int,
    penalty: float,
    start: tuple[Kernel, Bias] | None = None,
) -> tuple[Kernel, Bias]:
    """Kernel and bias of least mean cross-entropy + penalty / 2 |kernel|^2, by L-BFGS (Liu & Nocedal 1989), in float64.

    The start is 0 unless given.
    """
    from scipy import optimize, special

    count, inputs = values.shape
    rows = np.arange(count)

    def loss(flat: Float[np.ndarray, " p"]) -> tuple[float, Float[np.ndarray, " p"]]:
        weights = flat.reshape(classes, inputs + 1)
        kernel, bias = weights[:, :-1], weights[:, -1]
        log_shares = special.log_softmax(values @ kernel.T + bias, axis=1)
        excess = np.exp(log_shares)
        excess[rows, labels] -= 1
        gradient = np.concatenate([excess.T @ values / count + penalty * kernel, excess.mean(0)[:, None]], axis=1)
        return float(-log_shares[rows, labels].mean() + penalty / 2 * (kernel**2).sum()), gradient.ravel()

    first = np.zeros((classes, inputs + 1)) if start is None else np.concatenate([start[0], start[1][:, None]], axis=1)
    options = {"maxiter": STEPS, "gtol": 1e-7, "ftol": 1e-14}
    found = optimize.minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options=options)
    weights = found.x.reshape(classes, inputs + 1)
    return weights[:, :-1], weights[:, -1]
