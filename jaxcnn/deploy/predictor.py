"""A trained network as one function of images as stored: normalisation and weights are inside."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float, Num

from jaxcnn.learn import inference, quantized
from jaxcnn.learn.network import unrounded
from jaxcnn.models import context
from jaxcnn.tasks.temperature import temperature_of
from jaxcnn.train import exported
from jaxcnn.train.trained import Trained

Predict = Callable[[Num[Array, "b h w c"]], Float[Array, "b k"]]

INPUT, OUTPUT = "image", "logits"
OUTPUT_IN_WORDS = f"{OUTPUT}: float32 [batch, classes], before the softmax or sigmoid"
PIXELS = {
    "uint8": "from 0 to 255, as in a file",
    "uint16": "from 0 to 65535, as in a file",
    "float32": "as they were given in training",
}


def of(trained: Trained) -> Predict:
    """The function from images [b, h, w, c], of the type and range of the stored ones, to what the task finds in them.

    For most tasks these are the outputs [b, k]. It has one form for all platforms and batch sizes
    (`jaxcnn.models.context.portable`).
    """
    predict, leaves = of_leaves(trained)
    return lambda image: predict(image, *leaves)


def of_leaves(trained: Trained, find: bool = True) -> tuple[Callable[..., Float[Array, "b k"]], list[Any]]:
    """`of` with the arrays of the variables as further arguments, and these; the outputs alone without `find`."""
    variables, constants = jax.device_get((trained.variables, trained.constants))
    leaves, tree = jax.tree.flatten(variables)
    step = inference.answer_step if find else inference.predict_step

    def predict(image: Num[Array, "b h w c"], *leaves: Any) -> Float[Array, "b k"]:
        with context.portable():
            return step(trained.spec, jax.tree.unflatten(tree, leaves), image, constants)

    return predict, leaves


def output_name(trained: Trained) -> str:
    """What the output of a file is called: logits, or what the task finds."""
    finds = trained.spec.task.finds
    return OUTPUT if finds is None else finds.found_in_words.partition(":")[0]


def facts(trained: Trained) -> dict[str, str]:
    """What a user of the file must know, as JSON texts."""
    dtype, finds = trained.spec.image_dtype, trained.spec.task.finds
    told = {
        "input": f"{INPUT}: {dtype} [batch, height, width, channels], {PIXELS[dtype]}; normalised inside",
        "output": OUTPUT_IN_WORDS if finds is None else finds.found_in_words,
    }
    if (temperature := temperature_of(trained.fitted)) != 1:
        told["output"] += f"; divided by {temperature!r}, they give calibrated probabilities"
    return exported.facts(trained) | {name: json.dumps(value) for name, value in told.items()}


def in_float32(trained: Trained) -> Trained:
    """The network computed in float32, whatever type it was trained in, without the rounding of `optim.quantized`."""
    model = dataclasses.replace(trained.spec.model, dtype="float32")
    spec = unrounded(dataclasses.replace(trained.spec, model=model))
    return dataclasses.replace(trained, spec=spec, variables=quantized.without_ranges(trained.variables))
