"""Quantisation-aware training: the network is trained as `jaxcnn.export --quantize=int8` will write it.

Jacob et al. 2018, arXiv 1712.05877, section 3. The exporter's own graph is trained, with BatchNorm folded and with its
rounding (`jaxcnn.graphs.rounding`), so both always round the same values. Folding needs statistics that are known
before the batch: BatchNorm uses its running statistics, which stay; its scales and biases are trained. As in the
exported network, there is no dropout.

The range of an activation is the moving average of the smallest and largest value in a batch. Ranges are part of
`State.batch_stats`, so checkpoints, evaluation and averages of weights have them. A step rounds by the ranges of the
steps before it, so that its own are needed only at its end: their maxima over microbatches and devices are exact.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax.typing import Collection, VariableDict
from jaxtyping import Array, Float, Int32

from jaxcnn.config import ConfigError
from jaxcnn.graphs import in_jax, lowering, quantize, rounding
from jaxcnn.graphs.graph import Graph, simplified
from jaxcnn.models import context
from jaxcnn.models.network import Trainable
from jaxcnn.tasks.task import Task

RANGES, ENDS = "activation_ranges", "ends"  # in `batch_stats`: float32 [tensors, 2], in the order of `quantize.sources`
DECAY = 0.99  # decay of the moving average of ranges; smaller in the first hundred steps, over which it is the mean
_IMAGE = "image"


@dataclasses.dataclass(frozen=True)
class Quantized:
    """A network whose weights and activations are rounded.

    Attributes:
      network: the network without rounding.
      bits: bits of the weights.
    """

    network: Trainable
    bits: int

    def init(self, key: Any, images: Float[Array, "b h w c"]) -> VariableDict:
        """The initial variables of the network, and empty ranges.

        Raises:
          UserError: the network has an operation without an operator, or nothing to round.
        """
        variables = dict(self.network.init(key, images))
        count = len(quantize.sources(self._graph(variables, images)))
        ranges = {ENDS: jnp.zeros((count, 2), jnp.float32)}
        return variables | {"batch_stats": {**variables.get("batch_stats", {}), RANGES: ranges}}

    def apply(
        self, variables: VariableDict, images: Float[Array, "b h w c"], *, mutable: Any = False, **of_training: Any
    ) -> Any:
        """The outputs; with `mutable`, also the ends of the ranges in this batch, -low and high, for `tracked`."""
        graph = self._graph(variables, images)
        sources = quantize.sources(graph)
        made = rounding.rounded(graph, variables["batch_stats"][RANGES][ENDS], self.bits)
        values = in_jax.function(made, _IMAGE, (*sources, made.output))(images)
        if not mutable:
            return values[made.output]
        seen = [jax.lax.stop_gradient(values[name]) for name in sources]
        sizes = jnp.stack([jnp.stack([jnp.max(-each), jnp.max(each)]) for each in seen])
        return values[made.output], {"batch_stats": {RANGES: {ENDS: jnp.maximum(sizes, 0)}}}

    def _graph(self, variables: VariableDict, images: Float[Array, "b h w c"]) -> Graph:
        leaves, tree = jax.tree.flatten(without_ranges(variables))

        def function(images: Any, *leaves: Any) -> Any:
            with context.portable():
                return self.network.apply(jax.tree.unflatten(tree, leaves), images, train=False)

        image = jax.ShapeDtypeStruct(images.shape[1:], images.dtype)
        graph = simplified(lowering.lower(function, image, _IMAGE, leaves))
        quantize.without_empty_pads(graph)
        return graph


def without_ranges(variables: VariableDict) -> VariableDict:
    """The variables for the network without rounding."""
    stats = {name: value for name, value in variables.get("batch_stats", {}).items() if name != RANGES}
    return {"params": variables["params"], "batch_stats": stats}


def tracked(batch_stats: Collection, seen: Collection, step: Int32[Array, ""]) -> Collection:
    """The statistics after a step, in which only the ranges change.

    Args:
      batch_stats: statistics before the step.
      seen: largest values of the whole batch, from `Quantized.apply`: -low and high of each tensor, at least 0.
      step: steps done before this one.
    """
    done = step.astype(jnp.float32)
    decay = jnp.minimum(DECAY, done / (done + 1))
    ends = seen[RANGES][ENDS] * jnp.array([[-1, 1]], jnp.float32)
    return {**batch_stats, RANGES: {ENDS: decay * batch_stats[RANGES][ENDS] + (1 - decay) * ends}}


def check(network: Trainable, task: Task, image_shape: tuple[int, ...], drawn: bool) -> None:
    """Refuse networks that `jaxcnn.export` cannot quantise, and randomly drawn weights together with BatchNorm.

    Args:
      network: the network without rounding.
      task: the task of the network.
      image_shape: (H, W, C).
      drawn: whether weights are randomly drawn; BatchNorm would keep statistics that come from no data.

    Raises:
      ConfigError: the task or the network does not have one output per class, or there is such a BatchNorm.
      UserError: the network has an operation that cannot be written, or nothing to round.
    """
    if task.finds is not None or getattr(network, "LEARNS_FROM_TARGET", False):
        raise ConfigError("config.optim.quantized is for tasks with one output per class; set it to 0")
    image = jnp.zeros((1, *image_shape), jnp.float32)
    variables = jax.eval_shape(lambda: Quantized(network, 8).init(jax.random.key(0), image))
    if drawn and set(variables["batch_stats"]) != {RANGES}:
        raise ConfigError(
            "config.optim.quantized keeps the running statistics of BatchNorm, so it trains a trained network on; set "
            "config.init.source=workdir:<folder of a run>"
        )
