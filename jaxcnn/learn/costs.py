"""The cost of each layer of a network: parameters, floating-point operations, memory of its output."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcnn.learn import rates
from jaxcnn.learn.network import layers_of, network
from jaxcnn.learn.step_spec import StepSpec


@dataclasses.dataclass(frozen=True)
class Layer:
    """The costs of a layer with parameters of its own, for one image.

    Attributes:
      path: names of the modules, such as "block1_1/conv2"; that of the parameters.
      kind: name of its class.
      output: shape of its output without the batch, such as (32, 32, 64).
      parameters, trained: the number of its parameters, and of those that are trained.
      flops: operations of the forward pass of a convolution or dense layer; a multiply-add is two, and zero padding
        counts as pixels. 0 for other layers, which have below one per cent of the operations of a network.
      train_flops: operations of the forward pass, of the gradient of its input and, if it is trained, of its kernel.
      output_bytes: memory of its output.
    """

    path: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    trained: int
    flops: int
    train_flops: int
    output_bytes: int


def layers(spec: StepSpec) -> list[Layer]:
    """The layers of the network of a spec, in the order of their calls, found by tracing alone.

    Layers of `flax.nnx` are not seen one by one: they are listed with parameters only, in the order of their paths.
    """
    model = network(spec)
    seen: dict[str, tuple[str, Any]] = {}  # kind and output of the module at each path

    def look(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        output = call(*args, **kwargs)
        path = "/".join(context.module.path)
        if context.method_name == "__call__" and path and hasattr(output, "shape"):
            # Where layers share a path, as whitening and its convolution do: the innermost one, whose call ends first.
            seen.setdefault(path, (type(context.module).__name__, output))
        return output

    with nn.intercept_methods(look):
        variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *spec.image_shape)))
    rows = _own(variables["params"])
    trained = _own(rates.trainable(variables["params"], layers_of(spec, variables.get("batch_stats", {}))))
    order = [path for path in seen if path in rows] + [path for path in rows if path not in seen]
    return [_layer(path, seen.get(path), rows[path], trained.get(path, {})) for path in order]


def _own(params: Any) -> dict[str, dict[str, Any]]:
    """The parameters of each layer, by its path and their names."""
    found: dict[str, dict[str, Any]] = {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        path, _, name = rates.path_of(keys).rpartition("/")
        found.setdefault(path, {})[name] = leaf
    return found


def _layer(path: str, seen: tuple[str, Any] | None, params: dict[str, Any], trained: dict[str, Any]) -> Layer:
    kind, output = seen or ("", None)
    shape = () if output is None else output.shape[1:]
    kernel = params.get("kernel")
    flops = 0 if kernel is None or output is None else 2 * math.prod(kernel.shape) * math.prod(shape[:-1])
    size = 0 if output is None else math.prod(shape) * output.dtype.itemsize
    numbers, of_trained = (sum(leaf.size for leaf in each.values()) for each in (params, trained))
    return Layer(path, kind, tuple(shape), numbers, of_trained, flops, flops * (2 + ("kernel" in trained)), size)
