"""What a network of two stages finds in images, whose second stage goes on from the boxes of the first."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from jaxcnn.tasks import suppression
from jaxcnn.tasks.found_boxes import Detections


@dataclasses.dataclass(frozen=True)
class FoundInStages(Detections):
    """Boxes with scores, judged by COCO's average precision; the network itself finds them."""

    @property
    def search(self) -> Mapping[str, Any]:
        """How the network finds."""
        return {"most_found": self.most_found, "rule": self.rule}

    def found(self, outputs: Any) -> suppression.Found:
        """What the network has found, the best first."""
        return padded(outputs)


def padded(outputs: Any, *more: Float[Array, "b found m"]) -> Float32[Array, "b found 6m"]:
    """The columns of `suppression.found_in`, from "found", "scores" and "label" of a network, and more of each box."""
    found, scores, label = outputs["found"], outputs["scores"][..., None], outputs["label"][..., None]
    there = jnp.concatenate([found, scores, label.astype(found.dtype), *more], axis=-1)
    return jnp.where(scores > 0, there, 0.0).astype(jnp.float32)
