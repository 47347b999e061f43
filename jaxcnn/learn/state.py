"""The state of a run: everything that a step reads and replaces."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.typing import Collection
from jaxtyping import Array, Float32, Int32, Integer, Key, UInt32

from jaxcnn.config import Config
from jaxcnn.tasks import by_name
from jaxcnn.tasks.task import Task

Scalar = Float32[Any, ""]


@flax.struct.dataclass
class Hyper:
    """Hyper-parameters that are inputs of the compiled step; `task` has those of the task, by name."""

    learning_rate: Scalar
    weight_decay: Scalar
    momentum: Scalar
    label_smoothing: Scalar
    seed: UInt32[Any, ""]
    task: dict[str, Scalar] = flax.struct.field(default_factory=dict)

    def settings(self) -> dict[str, Scalar]:
        """The settings of the loss (`jaxcnn.tasks.task.Loss.losses`)."""
        return {"label_smoothing": self.label_smoothing, **self.task}


@flax.struct.dataclass
class State:
    """A pytree of arrays.

    Attributes:
      step: steps done.
      params: float32 parameters.
      batch_stats: running statistics of BatchNorm; empty for a network without it.
      opt_state: state of the optax optimiser.
      ema: {"params": …, "batch_stats": …}, the moving average; or that of `optim.swa_from`; None without either.
      hyper: the traced hyper-parameters. The random key of step t is `step_key(hyper.seed, t)`, so none is kept.
    """

    step: Int32[Any, ""]
    params: Collection
    batch_stats: Collection
    opt_state: optax.OptState
    ema: dict[str, Collection] | None
    hyper: Hyper

    def variables(self) -> dict[str, Collection]:
        """The Flax variables of the last step."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def make_hyper(config: Config) -> Hyper:
    """The traced fields of a config, as NumPy scalars.

    With `optim.base_batch_size`, the learning rate is multiplied by the batch size over that size: the linear scaling
    rule of Goyal et al. 2017 (arXiv 1706.02677). Large batches also need `schedule.warmup`.
    """
    optim = config.optim
    scale = config.global_batch_size / optim.base_batch_size if optim.base_batch_size else 1.0
    return Hyper(
        learning_rate=np.float32(optim.learning_rate * scale),
        weight_decay=np.float32(optim.weight_decay),
        momentum=np.float32(optim.momentum),
        label_smoothing=np.float32(optim.label_smoothing),
        seed=np.uint32(config.seed),
        task={name: np.float32(value) for name, value in by_name.settings(config.task).items()},
    )


def abstract_hyper(task: Task) -> Hyper:
    """The shapes and dtypes of `make_hyper`."""
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    of_task = dict.fromkeys(task.loss.settings, scalar)
    return Hyper(scalar, scalar, scalar, scalar, jax.ShapeDtypeStruct((), jnp.uint32), of_task)


def step_key(seed: UInt32[Any, ""], step: Integer[Any, ""] | int) -> Key[Array, ""]:
    """The random key of a step; all randomness of the step comes from it, by `fold_in`. Step -1 is initialisation."""
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), jnp.asarray(step).astype(jnp.uint32))


def count_parameters(params: Collection) -> int:
    """The number of parameters, including frozen ones."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
