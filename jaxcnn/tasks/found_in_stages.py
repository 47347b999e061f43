"""The boxes that a two-stage network finds; its second stage starts from the boxes of the first."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from jaxcnn.tasks import suppression
from jaxcnn.tasks.anchors import decoded
from jaxcnn.tasks.found_boxes import Detections
from jaxcnn.tasks.proposals import BOX_WEIGHTS, within

TINY = 1e-7  # lowest probability whose logarithm is taken


@dataclasses.dataclass(frozen=True)
class FoundInStages(Detections):
    """Boxes with scores, judged by COCO's average precision; the network itself finds them."""

    @property
    def search(self) -> Mapping[str, Any]:
        """The fields of the network that say how it finds, with their values."""
        return {"most_found": self.most_found, "rule": self.rule}

    def found(self, outputs: Any) -> suppression.Found:
        """The boxes that the network has found, by falling score; their columns are in `suppression.found_in`."""
        return padded(outputs)

    def of_places(self, outputs: Any) -> tuple[Float32[Array, "b 1 k 4"], Float32[Array, "b 1 k"]]:
        """The most probable box of each class, as if the image had one place, and the log-odds of each class.

        The proposal behind a box may change with the image, because the second stage has no fixed places.
        """
        probability = jax.nn.softmax(outputs["logits"])[..., 1:]
        odds = jnp.log(jnp.maximum(probability, TINY)) - jnp.log(jnp.maximum(1 - probability, TINY))
        odds = jnp.where(outputs["valid"][..., None], odds, jnp.log(TINY))
        surest = odds.argmax(axis=1)  # [b, k]
        told = outputs["told"]
        told = jnp.repeat(told, odds.shape[2], axis=2) if told.shape[2] == 1 else told[:, :, 1:]  # one for all classes
        told = jnp.take_along_axis(told, surest[:, None, :, None], axis=1)[:, 0]
        given = jnp.take_along_axis(outputs["boxes"], surest[..., None], axis=1)
        boxes = within(decoded(told.reshape(-1, 4), given.reshape(-1, 4), BOX_WEIGHTS), self.sides)
        return boxes.reshape(told.shape)[:, None], odds.max(axis=1)[:, None]


def padded(outputs: Any, *more: Float[Array, "b found m"]) -> Float32[Array, "b found 6m"]:
    """What a network has found, with the columns of `suppression.found_in`, then the columns `more`; 0 is padding."""
    found, scores, label = outputs["found"], outputs["scores"][..., None], outputs["label"][..., None]
    there = jnp.concatenate([found, scores, label.astype(found.dtype), *more], axis=-1)
    return jnp.where(scores > 0, there, 0.0).astype(jnp.float32)
