"""Operators of networks that find objects, in ONNX Runtime against JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.config import UserError
from jaxcnn.graphs import graph, lowering
from jaxcnn.models import roi_align
from jaxcnn.tasks import suppression
from jaxcnn.tasks.suppression import Rule
from tests import small
from tests.test_deploy import session_of

SIDES = (64, 96)


def both(function, images):
    """The results of a function of a batch in JAX, and in ONNX Runtime, there also one by one."""
    made = graph.simplified(lowering.lower(function, jax.ShapeDtypeStruct(images.shape[1:], jnp.float32), "image"))
    wanted = jax.jit(function).lower(images).compile(small.UNOPTIMISED)(images)
    session = session_of(made, images.shape[1:], ("n", *wanted.shape[1:]))
    (found,) = session.run(None, {"image": images})
    alone = [session.run(None, {"image": each[None]})[0] for each in images]
    assert np.array_equal(np.concatenate(alone), found)
    return np.asarray(wanted), found


def boxes(generator, *shape):
    """Boxes from a pixel to the whole image; of a few, all of which is beyond the border."""
    centre = generator.uniform(-10, 110, (*shape, 2))
    half = np.exp(generator.uniform(-1, 6.5, (*shape, 2))) / 2
    return np.concatenate([centre - half, centre + half], axis=-1).astype(np.float32)


def test_the_features_within_boxes_are_those_of_roi_align_on_every_level_and_beyond_the_border():
    generator = np.random.default_rng(0)
    shapes = [(16, 24, 3), (8, 12, 3), (4, 6, 3), (2, 3, 3)]
    ends = np.cumsum([0, *(np.prod(each) for each in shapes)])
    regions = boxes(generator, 2, 40)
    regions[:, :5] = [[-400, -400, 500, 500], [-50, -50, 250, 250], [0, 0, 96, 64], [5, 5, 5, 5], [30, 20, 20, 10]]
    regions[1, 5:] *= 0.2  # few levels are read
    maps = generator.normal(size=(2, ends[-1])).astype(np.float32)

    def function(x):
        parts = [x[:, i:j].reshape(-1, *s) for i, j, s in zip(ends[:-1], ends[1:], shapes, strict=True)]
        return roi_align.within_boxes(parts, x[:, ends[-1] :].reshape(-1, 40, 4), 7)

    wanted, found = both(function, np.concatenate([maps, regions.reshape(2, -1)], axis=1))
    levels = np.asarray(roi_align.level_of(jnp.asarray(regions[0]), 4))
    assert set(levels.tolist()) == {0, 1, 2, 3} and wanted.shape == (80, 7, 7, 3)
    # Places of up to 500 pixels are right to 500 * 2^-23 of a pixel, over which values differ by 8 at most.
    assert np.abs(found - wanted).max() < 8 * 500 * 2**-23 and np.abs(wanted).max() > 1


@pytest.mark.parametrize("across", [False, True])
def test_what_stands_of_boxes_that_overlap_is_that_of_the_run_also_of_equal_scores(across):
    generator = np.random.default_rng(1)
    given = boxes(generator, 2, 60)
    given[:, 30:] = given[:, :30] + generator.uniform(-2, 2, (2, 30, 1)).astype(np.float32)
    logits = generator.integers(-9, 3, (2, 60, 3)).astype(np.float32)  # many are equal, some below the least score
    rule = Rule(0.5, across=across)

    def function(x):
        return jax.vmap(lambda each: suppression.found_in(each[:, :4], each[:, 4:], SIDES, 200, rule))(x)

    wanted, found = both(function, np.concatenate([given, logits], axis=2))
    count = (wanted[..., 4] > 0).sum(axis=1)
    assert (count > 20).all() and (count < 175).all() and wanted.shape == (2, 200, 6)
    assert np.array_equal(found[..., [0, 1, 2, 3, 5]], wanted[..., [0, 1, 2, 3, 5]])
    assert np.abs(found - wanted).max() <= 2**-22  # the sigmoids of two libraries


def test_remainders_rows_of_tables_and_all_of_a_row_are_those_of_jax():
    table = np.arange(12, dtype=np.float32).reshape(6, 2)

    def function(x):
        values, place = jax.lax.top_k(x, 3)
        signs = jnp.all(x.reshape(-1, 3, 2) > -1, axis=2).astype(jnp.float32)
        chosen = jnp.take_along_axis(x.reshape(-1, 2, 3), (place % 2)[:, :1, None], axis=1)[:, 0]
        return jnp.concatenate(
            [values, jnp.asarray(table)[place].reshape(-1, 6), (place // 2 - 5) % 3 * 1.0, signs, chosen], axis=1
        )

    wanted, found = both(function, np.random.default_rng(2).normal(size=(4, 6)).astype(np.float32))
    assert np.array_equal(found, wanted) and wanted.shape == (4, 18)


def test_lookups_across_images_are_told():
    with pytest.raises(UserError, match="looks values up in a way that cannot be written as ONNX here"):
        lowering.lower(lambda x: x[x[:, 0].astype(jnp.int32)], jax.ShapeDtypeStruct((6,), jnp.float32), "image")
