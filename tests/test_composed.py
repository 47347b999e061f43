"""Images that turn, and images made of several: boxes, masks and maps follow, held against NumPy written on its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import config as configs
from jaxcnn.data import augment, instance_masks, rotation
from jaxcnn.data.batch import Batch
from jaxcnn.tasks.detection import Boxes
from jaxcnn.tasks.instances import Instances
from jaxcnn.tasks.moving import Move, nearest
from jaxcnn.tasks.pasting import from_grid
from jaxcnn.tasks.segmentation import VOID, LabelMaps

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
    turned = kind.moved(target, Move.of_rotation(matrix_of(-31.0)), SIDES)
    for row in ([[-65536, 0, 48 << 16], [0, 65536, 3 << 16]], [[65536, 0, -5 << 16], [0, 65536, 0]]):
        matrix = jnp.array(row, jnp.int32)
        moved = kind.moved(turned, Move.of_matrix(matrix), SIDES)
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
