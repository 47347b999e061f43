"""The linear probe: a classifier fitted to the features of a fixed network (`config.init.head="fitted"`)."""

import dataclasses
import re
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxcnn.config import Config, Task, UserError
from jaxcnn.data.batch import Constants, Split
from jaxcnn.data.selection import weights_of
from jaxcnn.learn import rates
from jaxcnn.learn.network import head_of
from jaxcnn.learn.state import State
from jaxcnn.machine import mesh as meshes
from jaxcnn.tasks import weights
from jaxcnn.text import counted
from jaxcnn.train import features, seals
from jaxcnn.train.setup import Setup
from jaxcnn.train.trained import Trained

# Penalties on half the squared norm of the kernel, for standardised features; the strongest first.
PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
STEPS = 500  # largest number of steps of L-BFGS for each penalty
MOST_BYTES = 2**28  # of features in float64 at once; more are converted again in each step, part by part
TRAINED = ("loss", "focal_gamma", "generalized_q", "teacher")  # of the training loss alone
Kernel = Float[np.ndarray, "k d"]
Bias = Float[np.ndarray, " k"]


def check(config: Config, head: str) -> None:
    """Refuse a classifier that is both fitted and kept as it was drawn.

    Args:
      config: the config of the run.
      head: the name of the module that makes the outputs.
    """
    for pattern in config.init.skip if config.init.head == "fitted" else ():
        if any(re.fullmatch(pattern, f"{head}/{leaf}") for leaf in ("kernel", "bias")):
            raise UserError(
                f"config.init.skip={pattern!r:.200} keeps the classifier as it was drawn, and "
                "config.init.head='fitted' fits it; leave one of them out"
            )


def fitted(found: Setup, state: State, constants: Constants, say: Callable[[str], None]) -> State:
    """A new state with the best classifier for the features of the training images, which are not augmented.

    Multinomial logistic regression by L-BFGS. Without `init.penalty`, the penalty is that of the highest accuracy on
    validation; of equal ones, the strongest. Weights of classes and of examples, repeated examples
    (`data.sampling="balanced"`) and `task.logit_adjustment` count as in training; label smoothing and TRAINED do not.

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
        *_counted(config.task, splits.train),
    )
    told = (
        "" if accuracy is None else f", {100 * accuracy:.2f} % of {counted(len(splits.val or ()), 'validation image')}"
    )
    say(
        f"  classifier fitted to {counted(len(seen.names), 'training image')} in {time.monotonic() - began:.1f} s: "
        f"penalty {penalty:g}{told}"
    )
    if others := [f"config.task.{name}" for name in TRAINED if getattr(config.task, name) != getattr(Task, name)]:
        say(f"  the fit is by cross-entropy; in training alone: {', '.join(others)}")
    new = {f"{head}/kernel": kernel.astype(np.float32), f"{head}/bias": bias.astype(np.float32)}

    ema = state.ema and {**state.ema, "params": seals.replaced(state.ema["params"], new)}
    return dataclasses.replace(state, params=seals.replaced(state.params, new), ema=ema)


def _counted(task: Task, train: Split) -> tuple[np.ndarray | None, np.ndarray | float]:
    """The weights of the training examples [n], None if all are 1, and the amount subtracted from the biases [k]."""
    counts = np.bincount(train.targets, minlength=len(train.class_names))
    of_each = weights_of(train)
    if weights.is_weighted(task):
        of_classes = weights.class_weights(task, train.class_names, counts)[train.targets]
        of_each = of_classes if of_each is None else of_each * of_classes
    # The loss of adjusted logits is least where the adjusted biases are those of the plain fit.
    return of_each, task.logit_adjustment * weights.log_frequencies(counts) if task.logit_adjustment else 0.0


def choose(
    values: features.Rows,
    labels: Int[np.ndarray, " n"],
    held_out: tuple[features.Rows, Int[np.ndarray, " m"]] | None,
    classes: int,
    penalties: tuple[float, ...],
    of_each: Float[np.ndarray, " n"] | None = None,
    less: Float[np.ndarray, " k"] | float = 0.0,
) -> tuple[Kernel, Bias, float, float | None]:
    """The classifier of the penalty that is best on held-out images, this penalty, and its accuracy there.

    Args:
      values: features of the training images.
      labels: their classes.
      held_out: features and labels of validation images; None if there is only one penalty.
      classes: k.
      penalties: each fit starts from the one before.
      of_each: weights of the training images; None: all count alike.
      less: amount subtracted from the biases of every fit.
    """
    mean, std = _moments(values)
    std = np.where(std > 1e-6 * max(std.max(), 1e-30), std, 1)  # a constant feature is left as it is
    start, best = None, None
    for penalty in penalties:
        start = logistic(values, labels, classes, penalty, start, (mean, std), of_each)
        kernel = start[0] / std
        bias = start[1] - kernel @ mean - less
        accuracy = None
        if held_out is not None:
            hits = [
                (held_out[0][part] @ kernel.T + bias).argmax(1) == held_out[1][part] for part in _parts(held_out[0])
            ]
            accuracy = float(np.concatenate(hits).mean())
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
    moments: tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]] | None = None,
    of_each: Float[np.ndarray, " n"] | None = None,
) -> tuple[Kernel, Bias]:
    """Kernel and bias of least mean cross-entropy + penalty / 2 |kernel|^2, by L-BFGS (Liu & Nocedal 1989), in float64.

    Args:
      values: features.
      labels: classes.
      classes: k.
      penalty: factor of half the squared norm of the kernel.
      start: kernel and bias to begin with; None: 0.
      moments: mean and deviation of each feature; the kernel is for features of mean 0 and deviation 1. None: of
        features as they are.
      of_each: weights of the examples in the mean; None: all count alike.
    """
    from scipy import optimize, special

    count, inputs = values.shape
    shares = np.full(count, 1 / count) if of_each is None else of_each / of_each.sum(dtype=np.float64)
    parts = list(_parts(values))

    def standard(part: slice) -> Float[np.ndarray, "m d"]:
        rows = values[part].astype(np.float64)
        return rows if moments is None else (rows - moments[0]) / moments[1]

    kept = [standard(part) for part in parts] if len(parts) == 1 else None

    def loss(flat: Float[np.ndarray, " p"]) -> tuple[float, Float[np.ndarray, " p"]]:
        now = flat.reshape(classes, inputs + 1)
        kernel, bias = now[:, :-1], now[:, -1]
        total, slope = penalty / 2 * (kernel**2).sum(), np.zeros_like(now)
        for part, rows in zip(parts, kept or map(standard, parts), strict=True):
            log_shares = special.log_softmax(rows @ kernel.T + bias, axis=1)
            places = np.arange(len(rows)), labels[part]
            total -= shares[part] @ log_shares[places]
            excess = np.exp(log_shares)
            excess[places] -= 1
            excess *= shares[part, None]
            slope[:, :-1] += excess.T @ rows
            slope[:, -1] += excess.sum(0)
        slope[:, :-1] += penalty * kernel
        return float(total), slope.ravel()

    first = np.zeros((classes, inputs + 1)) if start is None else np.concatenate([start[0], start[1][:, None]], axis=1)
    options = {"maxiter": STEPS, "gtol": 1e-7, "ftol": 1e-14}
    found = optimize.minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options=options)
    made = found.x.reshape(classes, inputs + 1)
    return made[:, :-1], made[:, -1]


def _parts(values: features.Rows) -> Iterator[slice]:
    """Slices of rows, each of which takes at most MOST_BYTES in float64."""
    rows = max(1, MOST_BYTES // (8 * max(1, values.shape[1])))
    return (slice(first, first + rows) for first in range(0, len(values), rows))


def _moments(values: features.Rows) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """Mean and deviation of each feature, in float64, part by part."""
    parts = list(_parts(values))
    mean = sum(values[part].sum(0, dtype=np.float64) for part in parts) / len(values)
    squares = sum(((values[part] - mean) ** 2).sum(0) for part in parts)
    return mean, np.sqrt(squares / len(values))
