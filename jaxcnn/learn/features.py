"""Features: the output of a layer of a network for images."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import VariableDict
from jaxtyping import Array, Float, Num

from jaxcnn.config import UserError
from jaxcnn.data.batch import Constants
from jaxcnn.learn.inference import predict_step
from jaxcnn.learn.network import network, unrounded
from jaxcnn.learn.step_spec import StepSpec


def features_step(
    spec: StepSpec,
    layer: str,
    variables: VariableDict,
    image: Num[Array, "b h w c"],
    constants: Constants,
    *,
    outputs: bool = False,
) -> Float[Array, "b ..."]:
    """The output of a layer for images; with an empty `layer`, the input of the layer that makes the outputs.

    Layers have the path of their parameters, such as "block1_conv1". Nothing is rounded by `optim.quantized`.
    With `outputs`, those of the same pass, [b, k], and then the features, are in one row for each image.
    """
    model: Any = network(spec)
    found: list[Array] = []

    def is_wanted(path: str, inputs: Any, output: Any) -> bool:
        if layer or model.HEAD:
            return path == (layer or model.HEAD)
        shape = (len(image), spec.task.targets.outputs)  # of the outputs, made from vectors by the last such layer
        return getattr(inputs, "ndim", 0) == 2 and getattr(output, "shape", None) == shape

    def look(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        output = call(*args, **kwargs)
        if context.method_name == "__call__" and args and is_wanted("/".join(context.module.path), args[0], output):
            found.append(output if layer else args[0])
        return output

    with nn.intercept_methods(look):
        made = predict_step(unrounded(spec), variables, image, constants)
    if not found:
        raise UserError(
            f"the network {spec.model.name!r} has no layer {layer!r}"
            if layer
            else f"the network {spec.model.name!r} has no layer that makes its outputs from one vector for each image"
        )
    if not layer and not hasattr(found[-1], "ndim"):
        raise UserError(f"the layer {model.HEAD!r} of {spec.model.name!r} sees several maps; name another layer")
    last = found[-1]  # of layers that share a path, the outermost comes last
    features = last if layer or last.ndim == 2 else last.mean(axis=(1, 2))  # SqueezeNet has its logits at every pixel
    return jnp.concatenate([made, features.reshape(len(image), -1).astype(made.dtype)], axis=1) if outputs else features
