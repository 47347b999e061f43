"""Mask R-CNN, and so Faster R-CNN within it, learns without any box, from one pixel, and from a thousand objects."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import config as configs
from jaxcnn import models
from jaxcnn.data import memory
from jaxcnn.data.source import open_splits
from jaxcnn.tasks import instances
from tests import small

pytestmark = pytest.mark.unoptimised
SIDE, MANY = 32, 1000
OF_OBJECTS = ("anchor_box", "box", "mask")  # losses; the first two are also those of Faster R-CNN
HEADS = ("anchor_boxes", "box_boxes", "mask_logits")  # layers that learn from objects alone


def objects_of(boxes):
    """The objects of an image, each filling its box."""
    masks = np.zeros((len(boxes), SIDE, SIDE), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = 1
    return {"boxes": boxes, "labels": [0] * len(boxes), "masks": masks}


def thousand():
    """A thousand different boxes within the image."""
    corner, size = np.divmod(np.arange(MANY), 10)
    left, top = corner % 10 * 2, corner // 10 * 2
    return np.stack([left, top, left + 3 + size % 5 * 2, top + 3 + size // 5 * 8], axis=1)


def variables_of(network, images):
    """Random variables; only the shapes are taken from the network, which compiles nothing."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda x: random.normal(0, 0.05, x.shape).astype(np.float32), shapes["params"])
    return {"params": params, "batch_stats": jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes["batch_stats"])}


def test_a_step_has_a_finite_gradient_for_no_box_one_pixel_and_a_thousand_objects():
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    given = memory.give((pixels, [objects_of([[9, 5, 10, 6]]), objects_of(thousand())]))
    task = configs.Task(name="instances", most_boxes=MANY, mask_side=8)
    targets = open_splits(configs.Data(source=given.source, protocol="full", test_split=""), task).train.targets
    assert targets["valid"].sum(axis=1).tolist() == [1, MANY]
    network = models.build(configs.Model(name="mask_rcnn_cnn", width=1 / 64), configs.Norm(), 1)
    x = jnp.asarray(pixels[:1] / np.float32(255))
    variables = variables_of(network, x)

    def loss(params, target):
        answer, _ = network.apply(
            variables | {"params": params},
            x,
            positions=jnp.zeros(1, jnp.int32),
            train=True,
            target=jax.tree.map(lambda column: column[None], target),
            rngs={"dropout": jax.random.key(1)},
            mutable=["batch_stats"],
        )
        parts = instances.parts(jax.tree.map(lambda each: each[0], answer), target, (SIDE, SIDE))
        return sum(parts.values()), parts

    step = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=small.UNOPTIMISED)
    one, many = ({name: rows[place] for name, rows in targets.items()} for place in (0, 1))
    none = one | {"valid": np.zeros(MANY, bool)}
    for kind, target in (("no box", none), ("one pixel", one), ("a thousand objects", many)):
        (value, parts), gradient = step(variables["params"], target)
        assert np.isfinite(value) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient)), kind
        assert all((parts[name] > 0) == (target is not none) for name in OF_OBJECTS), (kind, parts)
        assert parts["anchor_class"] > 0 and parts["class"] > 0, "the background is learnt in any case"
        moved = {head: np.abs(gradient[head]["kernel"]).max() for head in HEADS}
        assert all((each > 0) == (target is not none) for each in moved.values()), (kind, moved)
