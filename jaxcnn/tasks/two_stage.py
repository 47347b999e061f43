"""The loss of two-stage detectors for boxes, as in Faster R-CNN: Ren et al. 2015, arXiv:1506.01497."""

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

CORNER = 1 / 9  # error of a coordinate at which the smooth L1 loss changes from quadratic to linear


@dataclasses.dataclass(frozen=True)
class TwoStageLoss:
    """The sum of the four losses of Faster R-CNN, for each image by itself.

    torchvision divides by the number of sampled anchors or proposals in the batch. This divides by their number in
    the image; both are equal if each image has its full number. So no normaliser depends on how a batch is divided.

    In evaluation nothing is sampled and no true box joins the proposals: the loss covers all anchors and proposals.

    Attributes:
      sides: height and width of the images of evaluation.
    """

    sides: tuple[int, int]

    @property
    def plain(self) -> "TwoStageLoss":
        """This loss itself: training uses nothing besides."""
        return self

    @property
    def settings(self) -> tuple[str, ...]:
        """No settings: an empty tuple."""
        return ()

    def abstract(self) -> dict[str, Any]:
        """No constants: an empty mapping."""
        return {}

    def constants(self, config: configuration.Task, names: Any, facts: Facts, targets: Tree | None) -> dict[str, Any]:
        """No constants: an empty mapping."""
        return {}

    def pair(self, outputs: Any, target: Tree, settings: Settings, constants: Any) -> Any:
        """Never called: answers and boxes differ in number, and the config refuses whatever would compare them."""
        raise NotImplementedError

    def parts(self, answer: Any, target: Tree, sides: tuple[int, int]) -> dict[str, Float[Array, ""]]:
        """The losses of one image by name, each a scalar."""
        return parts(answer, target)

    def losses(self, outputs: Any, target: Tree, settings: Settings, constants: Any, image: Any) -> OfEach:
        """The loss of each image, float32 [b]; `outputs` are those of `jaxcnn.models.faster_rcnn` in training."""
        sides = sides_of(image, self.sides)
        return jax.vmap(lambda answer, of_one: _total(self.parts(answer, of_one, sides)))(outputs, target)

    def reported(self, outputs: Any, target: Tree, constants: Any) -> OfEach:
        """The loss of each image over all anchors and proposals, float32 [b]."""
        return self.losses(jax.vmap(judged)(outputs, target), target, {}, constants, None)


def _total(losses: dict[str, Float[Array, ""]]) -> Float[Array, ""]:
    return jnp.stack(list(losses.values())).sum()


def parts(answer: Any, target: Tree) -> dict[str, Float[Array, ""]]:
    """The losses of one image by name, for an answer in training or for one from `judged`."""
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
    """Picks the answers of the classes `number`, where 0 is the background; an answer shared by all classes stays."""
    return answers if answers.shape[axis] == 1 else jnp.take_along_axis(answers, number, axis=axis)


def learnt_label(answer: Any, target: Tree) -> Int[Array, " s"]:
    """The class that each proposal of an image should learn, counted from 1; 0 is the background."""
    return jnp.where(answer["positive"], target["label"][answer["true"]] + 1, 0)


def judged(answer: Any, target: Tree) -> dict[str, Array]:
    """An answer of one image in evaluation, extended by what each of its anchors and proposals should have learnt."""
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
    """The mean over the values that are used; 0 if none is used."""
    return jnp.where(used, values, 0.0).sum() / jnp.maximum(used.sum(), 1)


def _box_error(
    told: Float[Array, "s 4"],
    by: Float[Array, "s 4"],
    true: Int[Array, " s"],
    target: Tree,
    weights: Weights = (1.0, 1.0, 1.0, 1.0),
) -> Float[Array, " s"]:
    """The smooth L1 loss of box offsets, summed over the four: quadratic for small errors, linear for large ones."""
    wanted = encoded(target["boxes"][true].astype(by.dtype), by, weights)
    away = jnp.abs(told - wanted)
    return jnp.where(away < CORNER, 0.5 * away**2 / CORNER, away - 0.5 * CORNER).sum(axis=-1)
