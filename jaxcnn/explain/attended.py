"""What attention in a network looks at: its own weights of the pixels, from `jaxcnn.models.attention`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxcnn.config import UserError
from jaxcnn.explain.cams import Maps, enlarged
from jaxcnn.explain.named_layers import named, not_small
from jaxcnn.explain.network import Images, Network, Targets
from jaxcnn.learn import network as learnt
from jaxcnn.learn.step_spec import StepSpec
from jaxcnn.models.attention import MAPS


@dataclasses.dataclass(frozen=True)
class Gate:
    """An attention layer that weighs pixels, as a function of normalised images.

    Attributes:
      spec: static part of the training step of its run.
      name: its path, such as "block4_3/attention_branch".
      shape: (h, w) of its map.
    """

    spec: StepSpec
    name: str
    shape: tuple[int, int]

    def __call__(self, variables: Any, images: Any) -> Float[Any, "n _"]:
        """The weight of each position, row by row."""
        return _maps(self.spec, variables, images)[self.name].reshape(len(images), -1)


def _maps(spec: StepSpec, variables: Any, images: Any) -> dict[str, Any]:
    """The map [n, h, w] of each attention layer that has one, by the path of the layer."""
    model: Any = learnt.network(spec)
    _, seen = model.apply(variables, images, train=False, mutable=[MAPS])
    found = jax.tree_util.tree_flatten_with_path(seen.get(MAPS, {}))[0]
    return {"/".join(str(key.key) for key in keys[:-2]): leaf for keys, leaf in found}


def gates(spec: StepSpec, variables: Mapping[str, Any]) -> list[Gate]:
    """The attention layers of a network that weigh pixels, in order; traced only."""
    images = jax.ShapeDtypeStruct((1, *spec.image_shape), jnp.float32)
    made = jax.eval_shape(lambda variables, images: _maps(spec, variables, images), variables, images)
    return [Gate(spec, name, leaf.shape[1:]) for name, leaf in made.items()]


def choose(found: list[Gate], name: str) -> Gate:
    """The layer of this name; without one, the last whose map has at least 4x4 positions, or else the last.

    Raises:
      UserError: there is no such layer.
    """
    if not found:
        raise UserError(
            "method 'attention' shows how attention weighs pixels, and this network has none that does; SE and ECA "
            "weigh channels only"
        )
    if name:
        return named(found, name, "attention layer {} that weighs pixels")
    return not_small(found)[-1]


def attention(network: Network, images: Images, target: Targets, *, layer: Gate, enlarge: bool = True) -> Maps:
    """The weight that an attention layer gives each pixel, [n, h, w]: the same whatever the target.

    CBAM's gate of pixels (arXiv:1807.06521); the mean over channels of BAM's gate (1807.06514) and of coordinate
    attention's (2103.02907); the weights of the mean of global context (1904.11492); for non-local attention
    (1711.07971), the mean weight that all pixels give a position.
    """
    del target
    maps = dataclasses.replace(network, apply=layer).outputs(images).reshape(len(images), *layer.shape, 1)
    return (enlarged(maps, jnp.shape(images)[1:3]) if enlarge else maps)[..., 0]
