"""What a network of two stages learns of boxes, as Faster R-CNN does: Ren et al. 2015, arXiv:1506.01497."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

import jaxcnn.config as configuration
from jaxcnn.tasks.anchors import Weights, encoded, match_anchors, match_proposals
from jaxcnn.tasks.assignment import binary_cross_entropy
from jaxcnn.tasks.detection import sides_of
from jaxcnn.tasks.proposals import BOX_WEIGHTS
from jaxcnn.tasks.task import Facts, OfEach, Settings, Tree

CORNER = 1 / 9  # of the error of a box, where it turns from a square to a straight line


@dataclasses.dataclass(frozen=True)
class TwoStageLoss:
    """The sum of the four losses of Faster R-CNN, for each image by itself.

    Where torchvision divides by the number of anchors or proposals in the batch, this divides by that of the image,
    which is the same where each image has as many as are taken. So no normaliser depends on the division of a batch.

    In evaluation, where no proposals are taken and no true box is one, the loss is that over all anchors and proposals.

    Attributes:
      sides: height and width of the images of evaluation.
    """

    sides: tuple[int, int]

    @property
    def plain(self) -> "TwoStageLoss":
        """The same."""
        return self

    @property
    def settings(self) -> tuple[str, ...]:
        """None."""
        return ()

    def abstract(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def constants(self, config: configuration.Task, names: Any, facts: Facts, targets: Tree | None) -> dict[str, Any]:
        """Nothing."""
        return {}

    def pair(self, outputs: Any, target: Tree, settings: Settings, constants: Any) -> Any:
        """Answers and boxes differ in number; the config refuses what would compare them."""
        raise NotImplementedError

    def parts(self, answer: Any, target: Tree, sides: tuple[int, int]) -> dict[str, Float[Array, ""]]:
        """The losses of one image by name."""
        return parts(answer, target)

    def losses(self, outputs: Any, target: Tree, settings: Settings, constants: Any, image: Any) -> OfEach:
        """The loss of each image; `outputs` are those of `jaxcnn.models.faster_rcnn` in training."""
        sides = sides_of(image, self.sides)
        return jax.vmap(lambda answer, of_one: _total(self.parts(answer, of_one, sides)))(outputs, target)

    def reported(self, outputs: Any, target: Tree, constants: Any) -> OfEach:
        """The loss over all anchors and proposals."""
        return self.losses(jax.vmap(judged)(outputs, target), target, {}, constants, None)


def _total(losses: dict[str, Float[Array, ""]]) -> Float[Array, ""]:
    return jnp.stack(list(losses.values())).sum()


def parts(answer: Any, target: Tree) -> dict[str, Float[Array, ""]]:
    """The losses of one image by name: of an answer in training, or of one that `judged` made like it."""
    anchor_error = _box_error(answer["anchor_told"], answer["anchors"], answer["anchor_true"], target)
    positive = answer["anchor_positive"]
    entropy = binary_cross_entropy(answer["anchor_logits"], positive)
    label = learnt_label(answer, target)
    of_class = -jnp.take_along_axis(jax.nn.log_softmax(answer["logits"]), label[:, None], axis=1)[:, 0]
    told = one_of_class(answer["told"], label[:, None, None], axis=1)[:, 0]
    error = _box_error(told, answer["boxes"], answer["true"], target, BOX_WEIGHTS)
    return {
        "anchor_class": mean_of(entropy, answer["anchor_valid"]),
        "anchor_box": mean_of(jnp.where(positive, anchor_error, 0.0), answer["anchor_valid"]),
        "class": mean_of(of_class, answer["valid"]),
        "box": mean_of(jnp.where(answer["positive"], error, 0.0), answer["valid"]),
    }


def one_of_class(answers: Float[Array, "..."], number: Int[Array, "..."], axis: int) -> Float[Array, "..."]:
    """Of answers for each class, which the background precedes, those of some classes; of one for all, that one."""
    return answers if answers.shape[axis] == 1 else jnp.take_along_axis(answers, number, axis=axis)


def learnt_label(answer: Any, target: Tree) -> Int[Array, " s"]:
    """The number of the class that each proposal of an image learns, from 1; 0: the background."""
    return jnp.where(answer["positive"], target["label"][answer["true"]] + 1, 0)


def judged(answer: Any, target: Tree) -> dict[str, Array]:
    """An answer of one image after training, with what all its anchors and proposals should have learnt."""
    anchors = match_anchors(answer["anchors"], target)
    found = match_proposals(answer["boxes"], answer["valid"], target)
    kept = {name: array for name, array in answer.items() if name != "masks"}
    return kept | {
        "anchor_valid": anchors.positive | anchors.negative,
        "anchor_true": anchors.box,
        "anchor_positive": anchors.positive,
        "valid": found.positive | found.negative,
        "true": found.box,
        "positive": found.positive,
    }


def mean_of(values: Float[Array, " s"], used: Bool[Array, " s"]) -> Float[Array, ""]:
    """Of those that are used; 0 if there are none."""
    return jnp.where(used, values, 0.0).sum() / jnp.maximum(used.sum(), 1)


def _box_error(
    told: Float[Array, "s 4"],
    by: Float[Array, "s 4"],
    true: Int[Array, " s"],
    target: Tree,
    weights: Weights = (1.0, 1.0, 1.0, 1.0),
) -> Float[Array, " s"]:
    """What is told of boxes against the true ones: squares of small differences, absolute values of large ones."""
    wanted = encoded(target["boxes"][true].astype(by.dtype), by, weights)
    away = jnp.abs(told - wanted)
    return jnp.where(away < CORNER, 0.5 * away**2 / CORNER, away - 0.5 * CORNER).sum(axis=-1)
