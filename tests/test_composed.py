"""Images that turn, and images made of several: boxes, masks and maps follow, held against NumPy written on its own."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import config as configs
from jaxcnn.config import ConfigError
from jaxcnn.data import augment, composing, instance_masks, rotation
from jaxcnn.data.batch import Batch
from jaxcnn.data.order import storage_positions
from jaxcnn.learn import step as step_module
from jaxcnn.machine.mesh import make_mesh
from jaxcnn.tasks.detection import Boxes
from jaxcnn.tasks.instances import Instances
from jaxcnn.tasks.moving import Move, nearest
from jaxcnn.tasks.pasting import from_grid
from jaxcnn.tasks.segmentation import VOID, LabelMaps
from jaxcnn.train import length

SIDES = (40, 48)  # height, width
GRID = 32
ANGLES = (90.0, -90.0, 180.0, 7.0, -31.0, 45.0)


def matrix_of(degrees, sides=SIDES):
    return jnp.asarray(rotation.rotations(abs(degrees), sides)[-1 if degrees > 0 else 0])


def sources(degrees, sides=SIDES):
    """Where the centre of each pixel of a turned image comes from: y and x, in float64."""
    y, x = np.mgrid[: sides[0], : sides[1]] + 0.5
    angle, middle = np.deg2rad(degrees), (sides[1] / 2, sides[0] / 2)
    away_x, away_y = x - middle[0], y - middle[1]
    back_x = np.cos(angle) * away_x - np.sin(angle) * away_y + middle[0]
    return np.sin(angle) * away_x + np.cos(angle) * away_y + middle[1], back_x


def taken(image, y, x, outside=0):
    """The pixels in which places lie."""
    row, column = np.floor(y + 1e-9).astype(int), np.floor(x + 1e-9).astype(int)
    inside = (row >= 0) & (row < image.shape[0]) & (column >= 0) & (column < image.shape[1])
    return np.where(inside, image[row.clip(0, image.shape[0] - 1), column.clip(0, image.shape[1] - 1)], outside)


def sure(y, x):
    """Places that lie in one pixel for all who compute them with 16 bits after the point, in 48 pixels."""
    return (np.abs(y - np.round(y)) > 2**-9) & (np.abs(x - np.round(x)) > 2**-9)


def box_of(mask):
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0, 0, 0, 0]


def masks():
    """Four objects that do not touch: a ring, a bar, an ellipse, one that turns out of the image; [4, 40, 48]."""
    found = np.zeros((4, *SIDES), np.uint8)
    found[0, 5:17, 4:18] = 1
    found[0, 9:13, 8:14] = 0
    found[1, 30:33, 6:30] = 1
    y, x = np.mgrid[: SIDES[0], : SIDES[1]]
    found[2] = ((x - 33.5) / 8) ** 2 + ((y - 16.5) / 5) ** 2 <= 1
    found[3, 36:40, 44:48] = 1
    return found


def instances(shapes, most=6, crowd=()):
    """The target of one image with these masks, as the sources make it."""
    kind = Instances(3, most, GRID)
    row = np.zeros(1, kind.record_type())
    for place, mask in enumerate(shapes):
        row["mask"][0, place], row["mask_box"][0, place] = instance_masks.crop(mask, GRID)
        row["boxes"][0, place], row["label"][0, place] = box_of(mask), place % 3
    row["valid"][0, : len(shapes)], row["frame"][0] = True, [1, 1, 0, 0]
    row["crowd"][0, list(crowd)] = True
    return kind, {name: jnp.asarray(row[name][0]) for name in row.dtype.names}


def pixels(target, place, sides=SIDES):
    return from_grid(np.asarray(target["mask"][place]), np.asarray(target["mask_box"][place]), sides)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_quarter_turn_is_exact_and_other_angles_are_bilinear(dtype):
    high = np.iinfo(dtype).max if dtype != np.float32 else 1
    image = (np.random.default_rng(0).random((40, 40, 2)) * high).astype(dtype)
    for degrees, turns in ((90.0, 1), (-90.0, -1), (180.0, 2)):
        found = rotation.linear(jnp.asarray(image), matrix_of(degrees, (40, 40)))
        assert found.dtype == dtype and np.array_equal(found, np.rot90(image, turns))
    y, x = (each - 0.5 for each in sources(20.0, (40, 40)))
    wide = np.pad(image.astype(np.float64), ((20, 20), (20, 20), (0, 0)))
    row, column = np.floor(y).astype(int), np.floor(x).astype(int)
    down, right = (y - row)[..., None], (x - column)[..., None]
    wanted = sum(
        wide[row + 20 + i, column + 20 + j] * (down if i else 1 - down) * (right if j else 1 - right)
        for i in (0, 1)
        for j in (0, 1)
    )
    found = np.asarray(rotation.linear(jnp.asarray(image), matrix_of(20.0, (40, 40))), np.float64)
    # Each weight is cut to 11 bits, for 16-bit pixels to 7: an error of that unit in each direction, and rounding.
    assert np.abs(found - wanted).max() <= high * 2 * 2.0 ** -(7 if dtype == np.uint16 else 11) + 0.5 * (high > 1)


@pytest.mark.parametrize("degrees", ANGLES)
def test_a_turned_object_is_its_turned_mask_and_its_box_is_around_it(degrees):
    kind, target = instances(masks())
    moved = jax.jit(kind.moved, static_argnums=2)(target, Move.of_rotation(matrix_of(degrees)), SIDES)
    y, x = sources(degrees)
    certain = sure(y, x) if degrees % 90 else np.ones(SIDES, bool)
    assert certain.mean() > 0.95
    for place, mask in enumerate(masks()):
        wanted, found = taken(mask, y, x) > 0, pixels(moved, place)
        assert np.array_equal(found[certain], wanted[certain])
        assert moved["valid"][place] == found.any()
        assert moved["boxes"][place].tolist() == box_of(found)
        assert np.abs(np.subtract(box_of(found), box_of(wanted))).max() <= (0 if certain.all() else 1)
    assert not moved["valid"][4:].any()
    assert moved["valid"][3] == (degrees in (180.0, 7.0)), "the corner leaves the image"


def test_masks_that_turned_zoom_and_flip_as_before():
    kind, target = instances(masks()[:3])
    move = jax.jit(kind.moved, static_argnums=2)
    turned = move(target, Move.of_rotation(matrix_of(-31.0)), SIDES)
    for row in ([[-65536, 0, 48 << 16], [0, 65536, 3 << 16]], [[65536, 0, -5 << 16], [0, 65536, 0]]):
        matrix = jnp.array(row, jnp.int32)
        moved = move(turned, Move.of_matrix(matrix), SIDES)
        for place in range(3):
            # `nearest` of the whole turned mask; what left the image and comes back is cut by the loss's boxes.
            wanted = np.asarray(nearest(jnp.asarray(pixels(turned, place)), matrix, 0))
            assert np.array_equal(pixels(moved, place) & (np.asarray(nearest(jnp.ones(SIDES), matrix, 0)) > 0), wanted)


def test_a_box_without_a_mask_is_that_of_the_turned_ellipse_in_it():
    _, target = instances(masks())
    kind = Boxes(3, 6)
    plain = {name: target[name] for name in kind.spec()}
    for degrees in ANGLES:
        moved = kind.moved(plain, Move.of_rotation(matrix_of(degrees)), SIDES)
        y, x = sources(degrees)
        wanted = box_of(taken(masks()[2], y, x))  # the ellipse
        # Its pixels are those whose centres lie in it: half a pixel of the old grid and half of the new one.
        assert np.abs(np.asarray(moved["boxes"][2]) - wanted).max() <= 1
        if degrees % 90 == 0:
            for place in (0, 1, 2):
                box = box_of(taken(masks()[place], y, x))
                np.testing.assert_allclose(moved["boxes"][place], box, atol=2**-9)
    square = plain | {"boxes": plain["boxes"].at[0].set(jnp.array([14.0, 10.0, 34.0, 30.0]))}
    moved = kind.moved(square, Move.of_rotation(matrix_of(45.0)), SIDES)
    np.testing.assert_allclose(moved["boxes"][0], [14, 10, 34, 30], atol=2**-9)  # of the circle in it


def test_images_and_answers_turn_by_the_same_draws_of_their_positions():
    config = configs.Augment(normalize=False, rotate=40.0, flip="random", crop="zero", crop_padding=3)
    kind, target = instances(masks()[1:2])
    count = 12
    number = jnp.arange(count, dtype=jnp.int32) + 5
    image = jnp.asarray(np.tile(masks()[1][None, ..., None], (count, 1, 1, 1)), jnp.float32)
    made = {}
    for name, targets, answer in (
        ("masks", kind, target),
        ("map", LabelMaps(2, SIDES), jnp.asarray(masks()[1])),
    ):
        batch = Batch(image, jax.tree.map(lambda leaf: jnp.stack([leaf] * count), answer), number, number, number >= 0)
        made[name] = jax.jit(augment.augment, static_argnums=(0, 1))(
            config, targets, batch, jax.random.key(2), jnp.zeros(1), jnp.ones(1)
        )
    angles = set()
    for place in range(count):
        one = jax.tree.map(lambda leaf, place=place: leaf[place], made["masks"].target)
        there = np.asarray(made["map"].target[place])
        mask, bright = pixels(one, 0), np.asarray(made["masks"].image[place, ..., 0])
        shown = (there == 1) & (bright >= 0)
        assert (mask ^ shown).sum() <= 2, "the same pixels, but for those at the border of rounding"
        # Where all four neighbours agree, the bilinear image says the same.
        assert mask[bright > 0.999].all() and not mask[(bright < 0.001) & (there != VOID)].any()
        assert np.abs(one["boxes"][0] - np.array(box_of(shown))).max() <= 1
        angles.add(tuple(np.asarray(one["boxes"][0]).tolist()))
    assert len(angles) == count


def laid(inverse, start, sides=SIDES):
    """For each pixel of a mosaic: its tile, and the y and x in it from which it comes."""
    height, width = sides
    y, x = (
        np.broadcast_to(each, sides)
        for each in (
            float(start[1]) + (np.arange(height)[:, None] + 0.5) * float(inverse) / 65536,
            float(start[0]) + (np.arange(width) + 0.5) * float(inverse) / 65536,
        )
    )
    return 2 * (y >= height) + (x >= width), y % height, x % width


def stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@pytest.fixture(scope="module")
def drawn():
    """A mosaic of four images of objects, one of random maps with them as images, and how they are seen."""
    shapes = [np.roll(masks()[:3], (k, 2 * k), axis=(1, 2)) for k in range(4)]
    kind, _ = instances(shapes[0], most=20)
    objects = stacked([instances(each, most=20)[1] for each in shapes])
    random = np.random.default_rng(1)
    maps = random.integers(0, 200, (4, *SIDES)).astype(np.uint8)
    images = random.random((4, *SIDES, 1)).astype(np.float32)
    found = []
    mosaic = jax.jit(composing.mosaic, static_argnums=0)
    for words in jax.random.bits(jax.random.key(4), (3, 3), jnp.uint32):
        both = mosaic(kind, None, (jnp.asarray(images), objects), words)
        of_maps = mosaic(LabelMaps(200, SIDES), None, (jnp.asarray(images), jnp.asarray(maps)), words)
        found.append((laid(*composing.window(words, SIDES)), composing.window(words, SIDES), both, of_maps[1]))
    return shapes, maps, images, found


def test_a_mosaic_is_four_images_seen_through_one_window(drawn):
    _, maps, images, found = drawn
    for (tile, y, x), (inverse, start), (image, _), of_maps in found:
        assert 65536 <= inverse <= 2 * 65536 and (np.asarray(start) >= 0).all()
        assert len(np.unique(tile)) > 1
        assert np.array_equal(of_maps, maps[tile, y.astype(int), x.astype(int)])
        wanted = np.zeros(SIDES)
        for place, _ in np.ndenumerate(tile):
            source = np.pad(images[tile[place], ..., 0].astype(np.float64), 1, mode="edge")
            down, right = y[place] + 0.5, x[place] + 0.5
            i, j = int(down), int(right)
            rows = source[i : i + 2, j] * (1 - right + j) + source[i : i + 2, j + 1] * (right - j)
            wanted[place] = rows[0] * (1 - down + i) + rows[1] * (down - i)
        # Weights are cut to 11 bits in both directions.
        assert np.abs(np.asarray(image)[..., 0] - wanted).max() <= 2 * 2**-11


def test_the_objects_of_a_mosaic_are_where_their_pixels_are(drawn):
    shapes, _, _, found = drawn
    seen_objects = 0
    for (tile, y, x), (inverse, start), (_, target), _ in found:
        target = jax.device_get(target)
        wanted = []
        for number, of_image in enumerate(shapes):
            for label, mask in enumerate(of_image):
                corners = np.array(box_of(mask), float) + np.tile([number % 2 * SIDES[1], number // 2 * SIDES[0]], 2)
                whole = (corners - np.tile(np.asarray(start, float), 2)) / (float(inverse) / 65536)
                cut = np.clip(whole, 0, np.tile(SIDES[::-1], 2))
                left, size = np.prod(cut[2:] - cut[:2]), np.prod(whole[2:] - whole[:2])
                there = (mask[y.astype(int), x.astype(int)] > 0) & (tile == number)
                if left > 0:
                    wanted.append((left < 0.2 * size, label, cut, there))
        assert target["valid"].sum() == len(wanted) and target["valid"][: len(wanted)].all()
        for crowd, label, cut, there in wanted:
            place = np.abs(target["boxes"] - cut).sum(axis=1).argmin()
            assert (target["crowd"][place], target["label"][place]) == (crowd, label)
            np.testing.assert_allclose(target["boxes"][place], cut, atol=64 * 2**-15)
            assert np.array_equal(pixels(target, place), there)
            seen_objects += there.any()
        assert not target["boxes"][len(wanted) :].any()
    assert seen_objects > 8


def test_an_unshrunk_mosaic_has_the_pixels_of_its_images(monkeypatch):
    images = jnp.asarray(np.random.default_rng(2).normal(size=(4, *SIDES, 2)), jnp.float32)
    monkeypatch.setattr(composing, "window", lambda words, sides: (jnp.int32(65536), jnp.array([11, 29])))
    found, _ = composing.mosaic(LabelMaps(2, SIDES), None, (images, jnp.zeros((4, *SIDES), jnp.uint8)), None)
    rows = np.concatenate([np.concatenate(images[:2], axis=1), np.concatenate(images[2:], axis=1)])
    assert np.array_equal(found, rows[29 : 29 + SIDES[0], 11 : 11 + SIDES[1]])


def test_of_more_boxes_than_places_the_largest_stay_and_crowds_go_first():
    kind = Boxes(3, 4)
    boxes = np.array([[0, 0, n, 10] for n in (5, 9, 3, 7, 1, 8, 2, 6)], np.float32).reshape(2, 4, 4)
    parts = {
        "boxes": boxes, "label": np.arange(8).reshape(2, 4), "valid": np.arange(8).reshape(2, 4) != 1,
        "crowd": np.arange(8).reshape(2, 4) == 5, "area": boxes[..., 2], "frame": np.ones((2, 4), np.float32),
    }  # fmt: skip
    found = kind.composed(jax.tree.map(jnp.asarray, parts), jnp.ones((2, 3, 3), bool))
    assert found["label"].tolist() == [3, 7, 0, 2] and found["area"].tolist() == [7, 6, 5, 3]
    assert found["frame"].shape == (4,)


def test_pasted_objects_hide_what_lies_under_them_in_image_masks_and_boxes():
    shapes = masks()
    own_shapes, other_shapes = shapes[:3], np.roll(shapes[:3], 2, axis=1)[:, :, ::-1]
    thin = np.zeros(SIDES, np.uint8)
    thin[31, 20:24] = 1  # wholly under a pasted bar
    own_shapes = np.concatenate([own_shapes, thin[None]])
    other_shapes = np.concatenate([other_shapes, np.roll(own_shapes[1:2], 3, axis=2)])
    kind, own = instances(own_shapes, most=8)
    _, other = instances(other_shapes, most=8)
    other |= {"label": other["label"].at[:4].set(jnp.arange(4) + 10)}
    own |= {"label": own["label"].at[:4].set(jnp.arange(4))}
    own_image, other_image = jnp.zeros((*SIDES, 1)), jnp.ones((*SIDES, 1))
    paste = jax.jit(composing.pasted, static_argnums=0)
    ways, crowds, gone = set(), 0, 0
    for words in jax.random.bits(jax.random.key(0), (12, 8), jnp.uint32):
        image, target = jax.device_get(paste(kind, (own_image, own), (other_image, other), words))
        labels = target["label"][target["valid"]].tolist()
        pasted = [label - 10 for label in labels if label >= 10]
        over = other_shapes[pasted].any(axis=0)
        assert np.array_equal(image[..., 0] == 1, over)
        for label in range(4):
            rest = (own_shapes[label] > 0) & ~over
            if not rest.any():
                assert label not in labels
                gone += 1
                continue
            place = labels.index(label)
            assert np.array_equal(pixels(target, place), rest)
            assert target["boxes"][place].tolist() == box_of(rest)
            assert target["crowd"][place] == (rest.sum() < 0.2 * own_shapes[label].sum())
            crowds += target["crowd"][place]
        for label in pasted:
            place = labels.index(label + 10)
            assert np.array_equal(pixels(target, place), other_shapes[label] > 0) and not target["crowd"][place]
        ways.add(tuple(sorted(pasted)))
        _, full = instances(own_shapes[[0, 1, 2] * 2 + [0]], most=8)
        _, target = jax.device_get(paste(kind, (own_image, full), (other_image, other), words))
        assert target["valid"].sum() <= 8 and (target["label"][target["valid"]] >= 10).sum() <= 1
    assert len(ways) > 4 and gone and crowds


BATCH = 8
OBJECTS, _ = instances(masks(), most=12)
BOXES = Boxes(3, 12)
run = jax.jit(augment.augment, static_argnums=(0, 1))


def global_batch(kind):
    number = jnp.arange(BATCH, dtype=jnp.int32)
    image = np.random.default_rng(0).integers(0, 256, (BATCH, *SIDES, 1), dtype=np.uint8)
    shapes = [np.roll(masks()[:3], (k // 2, k // 2), axis=(1, 2))[: k % 4] for k in range(BATCH)]
    target = stacked([instances(each, most=12)[1] for each in shapes])
    return Batch(jnp.asarray(image), {name: target[name] for name in kind.spec()}, number, number, number >= 0)


def augmented(kind, on=True, **augments):
    given = global_batch(kind), jax.random.key(5), jnp.zeros(1), jnp.ones(1)
    return jax.device_get(run(configs.Augment(**augments), kind, *given, composing_on=jnp.array(on)))


@pytest.mark.parametrize(
    ("kind", "devices", "microbatches", "augments"),
    [
        (BOXES, 2, 1, {"rotate": 20.0, "mosaic": 0.7, "mixup_boxes": 0.5}),
        (OBJECTS, 4, 2, {"copy_paste": 0.7, "mosaic": 0.7}),
    ],
)
def test_devices_and_microbatches_never_change_a_bit(kind, devices, microbatches, augments):
    order = storage_positions(BATCH, devices, microbatches).reshape(-1)
    config = configs.Augment(**augments)
    function = jax.shard_map(
        lambda batch, key: augment.augment(
            config, kind, batch, key, jnp.zeros(1), jnp.ones(1), axis_name="data", microbatches=microbatches
        ),
        mesh=make_mesh(devices), in_specs=(jax.P("data"), jax.P()), out_specs=jax.P("data"), check_vma=False,
    )  # fmt: skip
    made = jax.jit(function)(jax.tree.map(lambda leaf: leaf[order], global_batch(kind)), jax.random.key(5))
    made = jax.tree.map(lambda leaf: np.asarray(leaf)[np.argsort(order)], made)
    whole = augmented(kind, **augments)
    jax.tree.map(np.testing.assert_array_equal, made, whole)
    if kind is BOXES:  # from a step on, images are single again
        off, alone = augmented(kind, on=False, **augments), augmented(kind, rotate=20.0)
        jax.tree.map(np.testing.assert_array_equal, off, alone)
        assert not np.array_equal(whole.image, off.image)


def test_the_mean_is_that_of_two_images_with_the_objects_of_both():
    plain, mixed = augmented(BOXES), augmented(BOXES, mixup_boxes=1.0)
    assert np.array_equal(mixed.image, (plain.image + np.roll(plain.image, 1, axis=0)) / 2)
    for place in range(BATCH):
        both = [tuple(box) for at in (place, place - 1) for box in plain.target["boxes"][at][plain.target["valid"][at]]]
        found = mixed.target["boxes"][place][mixed.target["valid"][place]]
        assert sorted(map(tuple, found)) == sorted(both)
    # With a mosaic, the other one is that before its four.
    mosaic, both = augmented(BOXES, mosaic=1.0), augmented(BOXES, mosaic=1.0, mixup_boxes=1.0)
    assert np.array_equal(both.image, (mosaic.image + np.roll(plain.image, 4, axis=0)) / 2)


def test_the_share_of_the_run_in_which_images_are_made_of_several_ends_at_one_step():
    def on(share, step):
        spec = types.SimpleNamespace(augment=configs.Augment(mosaic=1.0, single_from=share), total_steps=20)
        return bool(step_module.composes(spec, jnp.int32(step)))

    assert [on(0.95, step) for step in (0, 18, 19, 20)] == [True, True, False, False]
    assert on(0.0, 19) and [on(0.5, step) for step in (9, 10)] == [True, False]


def test_a_run_that_ends_composing_at_a_share_of_its_length_cannot_become_longer():
    flat = configs.flatten(configs.to_dict(configs.Config())) | {"schedule.name": "constant", "run.steps": 20}
    longer = {"run.steps": 40, "augment.single_from": 0.5}
    assert "config.augment.single_from" in length.why_not_longer(flat, flat | longer)


def config_of(task, model, batch=8, **augments):
    tree = configs.to_dict(configs.Config())
    tree["global_batch_size"] = batch
    tree["task"]["name"], tree["model"]["name"] = task, model
    tree["augment"] |= augments
    return configs.from_config_dict(tree)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("classification", "cnn", 8, {"mosaic": 0.5}), "config.augment.mosaic is for config.task.name='detection' or"),
        (("segmentation", "unet", 8, {"mixup_boxes": 0.5}), "config.augment.mixup_boxes is for"),
        (("detection", "yolo_cnn", 8, {"copy_paste": 0.5}), "config.task.name='instances', not 'detection'"),
        (("detection", "yolo_cnn", 1, {"mosaic": 0.5}), "needs other images of the batch"),
        (("detection", "yolo_cnn", 8, {"single_from": 0.5}), "single_from=0.5 has no effect without one of mosaic"),
        (("detection", "yolo_cnn", 8, {"mixup": 0.5}), "mixup does not move boxes; .* or set mixup_boxes"),
        (("classification", "cnn", 8, {"rotate": 190.0}), "config.augment.rotate must be at most 180"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(given, line):
    task, model, batch, augments = given
    with pytest.raises(ConfigError, match=line):
        config_of(task, model, batch, **augments)
    config_of("instances", "mask_rcnn_cnn", mosaic=1.0, copy_paste=0.5, mixup_boxes=0.5, single_from=0.9, rotate=5.0)
