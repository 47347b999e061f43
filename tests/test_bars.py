"""Batches of wide and tall images: which images come together, what is cut off them, and whole runs."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxcnn import config as configs
from jaxcnn.config import ConfigError
from jaxcnn.data import bars, order
from jaxcnn.data.batch import Batch
from jaxcnn.data.boxes import frame_of
from jaxcnn.data.decode import fitted
from jaxcnn.tasks.detection import Boxes
from jaxcnn.train import trained
from tests import digits, runs
from tests.test_detection import batched, targets

pytestmark = pytest.mark.unoptimised
SHAPES, SIDE = ((32, 64), (64, 32)), 64


@pytest.mark.parametrize("size", [512, 416])
def test_an_image_fits_where_no_pixel_of_it_is_cut_off(size):
    shapes = ((256, size), (384, size), (size, 320))
    for height, width in ((100, 200), (101, 200), (300, 400), (301, 403), (400, 250), (50, 50), (2, 999), (999, 2)):
        frame = frame_of(height, width, size, "pad")
        (fits,) = bars.fitting(frame[None], shapes, size)
        wide, high = fitted((width, height), size, "pad")
        left, top = (size - wide) // 2, (size - high) // 2
        for (tall, across), found in zip((*shapes, (size, size)), fits, strict=True):
            cut = (size - across) // 2, (size - tall) // 2
            inside = left >= cut[0] and top >= cut[1] and left + wide <= size - cut[0] and top + high <= size - cut[1]
            assert found == inside, (height, width, tall, across)


def test_batches_have_one_kind_nearly_always_and_each_example_is_seen_once():
    batch, examples, seed = 8, 640, 3
    kinds = np.random.default_rng(0).integers(0, 3, examples)
    positions = np.arange(batch)
    steps = [order.example_index(seed, step, positions, batch, examples, kinds) for step in range(80)]
    assert np.array_equal(np.sort(np.concatenate(steps)), np.arange(examples))  # 80 steps are five windows, one epoch
    pure = [len({*kinds[index]}) == 1 for index in steps]
    assert np.mean(pure) >= 14 / 16, "three kinds have two borders in a window"
    first = [kinds[index[0]] for index in steps]
    assert first[:16] != sorted(first[:16]), "the batches of a window are in a drawn order"
    plain = [order.example_index(seed, step, positions, batch, examples) for step in range(80)]
    for window in range(0, 80, 16):
        assert {*np.concatenate(steps[window : window + 16])} == {*np.concatenate(plain[window : window + 16])}
    in_jax = jax.jit(lambda step, position: order.example_index(seed, step, position, batch, examples, kinds))
    for step in (0, 5, 17, 79):
        part = jnp.asarray(positions[2:5])
        assert np.array_equal(in_jax(jnp.int32(step), part), steps[step][2:5]), "on any device, of any loader"


def test_bars_are_cut_off_and_boxes_stay_on_their_objects():
    image = np.zeros((2, 64, 64, 1), np.uint8)
    image[:, 20:40, 10:50] = 255
    target = batched(targets([(10, 20, 50, 40)]), 2)
    frame = jnp.array([[1.0, 1.0, 0.0, 16.0], [1.0, 1.0, 0.0, 18.0]])
    place = jnp.arange(2, dtype=jnp.int32)
    batch = Batch(jnp.asarray(image), target | {"frame": frame}, place, place, jnp.ones(2, bool))
    assert bars.kind_of_batch(batch, SHAPES, None) == 0
    seen = bars.cropped(Boxes(1, 80), batch, SHAPES[0])
    assert seen.image.shape == (2, 32, 64, 1) and np.array_equal(seen.image, image[:, 16:48])
    assert seen.target["boxes"][:, 0].tolist() == [[10, 4, 50, 24]] * 2 and not seen.target["crowd"].any()
    assert seen.target["frame"].tolist() == [[1, 1, 0, 0], [1, 1, 0, 2]]
    mixed = batch.replace(target=batch.target | {"frame": frame.at[1].set(jnp.array([1.0, 1.0, 16.0, 0.0]))})
    assert bars.kind_of_batch(mixed, SHAPES, None) == len(SHAPES), "a wide and a tall image fit into the square alone"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """24 wide and 24 tall images with a box each, in COCO's form."""
    root = tmp_path_factory.mktemp("bars")
    random = np.random.default_rng(0)
    tree = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
    for number in range(1, 49):
        height, width = (32, 64) if number % 2 else (64, 30)
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(root / f"{number}.png")
        tree["images"].append({"id": number, "file_name": f"{number}.png"})
        tree["annotations"].append({"id": number, "image_id": number, "category_id": 1, "bbox": [4, 6, 20, 18]})
    (root / "instances_train.json").write_text(json.dumps(tree))
    return root


def groups(folder, devices=1, loader="resident"):
    return {
        "global_batch_size": 4,
        "model": {"name": "yolo_cnn", "width": 1 / 32},
        "task": {"name": "detection", "most_boxes": 4, "most_found": 20},
        "data": {
            **{"source": f"coco:{folder}", "test_split": "", "protocol": "full", "loader": loader},
            **{"image_size": SIDE, "resize": "pad"},
        },
        "augment": {"flip": "random", "shapes": SHAPES[:1]},
        "optim": {"name": "adamw", "learning_rate": 0.01},
        "run": {"steps": 4, "tensorboard": False, "curves": False, "log_every_steps": 1},
        "parallel": {"devices": devices},
    }


def test_a_resumed_run_ends_with_the_bits_of_the_undisturbed_one(folder, tmp_path):
    digits.run(tmp_path / "whole", **groups(folder))
    losses = runs.losses(tmp_path / "whole")
    digits.run_up_to(2, tmp_path / "parts", **groups(folder))
    digits.run(tmp_path / "parts", **groups(folder))
    assert runs.losses(tmp_path / "parts") == losses and len({*losses}) == 4
    ends = [trained.load(tmp_path / name, "last", "last", 1)[0].variables for name in ("whole", "parts")]
    assert all(np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, ends), strict=True))


@pytest.mark.services  # a minute and a half of compilation
def test_two_devices_and_the_other_loader_train_alike(folder, tmp_path):
    digits.run(tmp_path / "one", **groups(folder))
    digits.run(tmp_path / "two", **groups(folder, devices=2, loader="stream"))
    one, two = (runs.losses(tmp_path / name) for name in ("one", "two"))
    np.testing.assert_allclose(two, one, rtol=1e-4)  # sums in another order


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"task": {"name": "segmentation"}, "model": {"name": "unet_small"}}, "is for config.task.name='detection'"),
        ({"data": {"resize": "stretch", "image_size": 64}}, "needs config.data.resize='pad'"),
        ({"augment": {"shapes": ((30, 64),)}}, "must be pairs (height, width) of multiples of 32"),
        ({"augment": {"shapes": SHAPES, "sides": (32, 64)}}, "excludes config.augment.sides"),
        ({"augment": {"shapes": SHAPES, "flip": "alternating"}}, "set config.augment.flip='random'"),
    ],
)
def test_what_does_not_go_with_shapes_is_refused_in_one_line(change, line):
    tree = configs.to_dict(configs.Config())
    tree["model"] |= {"name": "yolo_cnn"}
    tree["task"] |= {"name": "detection"}
    tree["data"] |= {"image_size": 64, "resize": "pad"}
    tree["augment"] |= {"shapes": SHAPES}
    configs.from_config_dict(tree)
    for group, values in change.items():
        tree[group] = tree[group] | values
    with pytest.raises(ConfigError) as told:
        configs.from_config_dict(tree)
    assert line in str(told.value)
