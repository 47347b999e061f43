"""Detection at its edges: a thousand boxes, a step without any box, images of 16 bits and of one channel."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxcnn import config as configs
from jaxcnn import models
from jaxcnn.data import memory
from jaxcnn.data.batch import Constants
from jaxcnn.data.source import open_splits
from jaxcnn.tasks import suppression
from jaxcnn.tasks.coco_figures import CocoFigures
from jaxcnn.tasks.detection import DetectionLoss
from tests import small

pytestmark = pytest.mark.unoptimised
SIDE = 32
MANY = 1000


def data(source, **changes):
    return configs.Data(source=source, protocol="full", test_split="", **changes)


def many():
    """A thousand boxes of 10 x 10 pixels side by side, [1000, 4]."""
    corner = 10.0 * np.stack(np.meshgrid(np.arange(40), np.arange(25)), axis=-1).reshape(-1, 2)
    return np.concatenate([corner, corner + 10], axis=1)


def test_a_thousand_boxes_are_read_learnt_and_found():
    given = memory.give((np.zeros((1, 250, 400, 3), np.uint8), [{"boxes": many(), "labels": [0] * MANY}]))
    targets = open_splits(data(given.source), configs.Task(name="detection", most_boxes=MANY)).train.targets
    assert targets["valid"].sum() == MANY and np.array_equal(targets["boxes"][0], many())
    logits = np.linspace(5, 1, MANY, dtype=np.float32)[:, None]

    def both(boxes, logits):
        found = suppression.found_in(boxes, logits, (250, 400), MANY, suppression.Rule(0.5))
        constants = Constants(jnp.zeros(1), jnp.ones(1), {"boxes_per_image": np.float32(MANY)})
        outputs = jnp.concatenate([boxes, logits], axis=1)[None]
        return found, DetectionLoss(1, (64, 48)).losses(outputs[:, :64], targets, {}, constants, None)

    found, loss = jax.jit(both, compiler_options=small.UNOPTIMISED)(jnp.asarray(many(), jnp.float32), logits)
    assert np.array_equal(found[:, :4], many()) and np.isfinite(loss).all()
    collector = CocoFigures()
    collector.add(np.asarray(found)[None], targets)
    figures = collector.figures(("a",), {})
    assert figures["ar"] == pytest.approx(100 / MANY) and figures["confusion_matrix"] == [[MANY, 0], [0, 0]]


def sixteen_bits(root):
    """A set of grey images of 16 bits, of which the first has a bright object."""
    (root / "images").mkdir()
    for number in range(2):
        pixels = np.full((40, 60), 900, np.uint16)
        pixels[10:20, 15:35] = 60000 if number == 0 else 900
        Image.fromarray(pixels).save(root / "images" / f"{number}.png")
    tree = {
        "images": [{"id": k, "file_name": f"{k}.png", "height": 40, "width": 60} for k in range(2)],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [15, 10, 20, 10]}],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (root / "instances_train.json").write_text(json.dumps(tree))
    return f"coco:{root}"


def test_a_step_of_16_bit_grey_images_learns_with_a_box_and_without_any(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    task = configs.Task(name="detection", most_boxes=3)
    split = open_splits(
        data(sixteen_bits(tmp_path), image_size=SIDE, resize="pad", dtype="uint16", channels=1), task
    ).train
    images, targets = split.read(np.arange(2)), split.targets
    assert images.dtype == np.uint16 and images.shape == (2, SIDE, SIDE, 1)
    (first,) = np.flatnonzero(targets["valid"].any(axis=1))
    rows, columns = np.nonzero(images[first, :, :, 0] > 30000)
    extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert images.max() > 50000 and np.abs(targets["boxes"][first, 0] - extent).max() < 1
    network = models.build(configs.Model(name="yolo_cnn", width=1 / 32), configs.Norm(), 1)
    x = jnp.asarray(images / np.float32(65535))
    variables = jax.jit(network.init, compiler_options=small.UNOPTIMISED)(jax.random.key(0), x)

    def loss(params, target):
        constants = Constants(jnp.zeros(1), jnp.ones(1), {"boxes_per_image": np.float32(0.5)})
        outputs, _ = network.apply(variables | {"params": params}, x, train=True, mutable=["batch_stats"])
        return DetectionLoss(1, (SIDE, SIDE)).losses(outputs, target, {}, constants, x).mean()

    step = jax.jit(jax.value_and_grad(loss), compiler_options=small.UNOPTIMISED)
    found = [step(variables["params"], targets | {"valid": targets["valid"] & there}) for there in (True, False)]
    for value, gradient in found:
        assert np.isfinite(value) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
        assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) > 0
    of_boxes = [np.abs(gradient["head"]["level0_box_out"]["kernel"]).max() for _, gradient in found]
    assert found[0][0] > found[1][0] and of_boxes[1] == 0, "without a box, only the background is learnt"
