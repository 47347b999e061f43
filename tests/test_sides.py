"""Multi-scale training: each step draws the size of its images, answers follow, and nothing else depends on it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import config as configs
from jaxcnn.config import ConfigError
from jaxcnn.data import augment, image_ops
from jaxcnn.data.batch import Batch, Constants
from jaxcnn.learn import step
from jaxcnn.learn.network import check_sides
from jaxcnn.machine import mesh as meshes
from jaxcnn.tasks import mask_grids
from jaxcnn.tasks.box_records import MASK, MASK_BOX
from jaxcnn.tasks.detection import DetectionLoss
from jaxcnn.tasks.instances import Instances
from tests import digits, runs, small

pytestmark = [pytest.mark.usefixtures("kept_programs"), pytest.mark.unoptimised]
DRAWN = {"flip": "random", "sides": (6, 8)}


def made(sides=DRAWN["sides"]):
    return small.config(augment={**DRAWN, "sides": sides})


def test_the_sizes_are_steps_of_one_size_and_the_full_one_is_not_resized():
    spec = small.spec_of(made())
    assert [each.small_side for each in spec.sizes] == [6, 0]
    assert all(each.sizes == (each,) and each.augment.sides == () for each in spec.sizes)
    plain = small.spec_of(small.config(augment={"flip": "random"}))
    assert plain.sizes == (plain,) and spec.sizes[1] == plain


def test_a_step_is_that_of_the_size_it_draws_by_seed_and_step_and_all_are_drawn():
    spec, mesh = small.spec_of(made()), meshes.make_mesh(1)
    config = made()
    state = small.initial_state(spec, mesh, config)
    images, labels = small.split()
    count = spec.global_batch_size
    places = jnp.arange(count, dtype=jnp.int32)
    batch = Batch(jnp.asarray(images[:count]), jnp.asarray(labels[:count]), places, places, jnp.ones(count, bool))
    constants = small.constants(mesh)

    @functools.partial(jax.jit, static_argnums=0, compiler_options=small.UNOPTIMISED)
    def gradients(spec, number):
        return step.batch_gradients(spec, state.params, state.batch_stats, number, state.hyper, batch, constants)

    seen = set()
    for number in range(5):
        mixed = gradients(spec, jnp.int32(number))
        alone = [gradients(each, jnp.int32(number)) for each in spec.sizes]
        # The same operations in another program, which may round the sums in another order.
        near = [np.allclose(mixed.sums["loss"], each.sums["loss"], rtol=1e-5) for each in alone]
        assert sum(near) == 1
        seen.add(near.index(True))
        one = alone[near.index(True)]
        for leaf, other in zip(jax.tree.leaves(mixed.grads), jax.tree.leaves(one.grads), strict=True):
            np.testing.assert_allclose(leaf, other, rtol=1e-3, atol=1e-5)
    assert seen == {0, 1}


def test_eight_devices_draw_the_same_sizes_as_one():
    config, found = made(), []
    for devices in (1, 8):
        mesh = meshes.make_mesh(devices)
        spec = small.spec_of(config)
        data = jax.device_put(small.resident.Resident(*small.split()), meshes.replicated(mesh))
        state = small.initial_state(spec, mesh, config)
        losses = []
        for _ in range(3):
            state, metrics = small.unoptimised_step(spec, mesh)(state, data, small.constants(mesh))
            losses.append(float(metrics.sums["loss"]))
        found.append(losses)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)  # sums in another order


def test_a_run_that_stops_and_goes_on_has_the_bits_of_one_that_does_not(tmp_path):
    groups = {"augment": {"sides": (6, 8)}, "run": {"steps": 8}}
    digits.run(tmp_path / "whole", **groups)
    digits.run_up_to(3, tmp_path / "other", **groups)
    digits.run(tmp_path / "other", **groups)
    assert runs.records(tmp_path / "whole") == runs.records(tmp_path / "other")
    assert runs.seals(tmp_path / "whole") == runs.seals(tmp_path / "other")


def test_boxes_and_masks_shrink_with_their_image():
    kind = Instances(3, 2, 8)
    target = {name: jnp.zeros((1, *leaf.shape), leaf.dtype) for name, leaf in kind.spec().items()}
    corners = jnp.array([[4.0, 8.0, 12.0, 32.0], [0.0, 0.0, 0.0, 0.0]])
    target |= {
        "boxes": corners[None],
        "valid": jnp.array([[True, False]]),
        MASK: mask_grids.bits_of(jnp.ones((2, 8, 8), bool))[None],
        MASK_BOX: corners[None],
    }
    image = np.random.default_rng(0).integers(0, 255, (1, 32, 32, 3), np.uint8)
    place = jnp.zeros(1, jnp.int32)
    batch = Batch(jnp.asarray(image), target, place, place, jnp.ones(1, bool))
    options = configs.Augment(normalize=False)
    seen = augment.augment(options, kind, batch, jax.random.key(0), jnp.zeros(3), jnp.ones(3), small_side=24)
    assert seen.image.shape == (1, 24, 24, 3)
    assert np.array_equal(seen.image, image_ops.shrink(jnp.asarray(image) / np.float32(255), 24))
    assert seen.target["boxes"][0, 0].tolist() == [3.0, 6.0, 9.0, 24.0]
    assert seen.target[MASK_BOX][0, 0].tolist() == [3.0, 6.0, 9.0, 24.0]
    assert seen.target["valid"].tolist() == [[True, False]] and not seen.target["crowd"].any()
    assert np.array_equal(seen.target[MASK], target[MASK])


def test_the_loss_of_a_detector_is_that_of_the_images_it_sees():
    kind = Instances(2, 3, 8)
    target = {name: jnp.zeros((1, *leaf.shape), leaf.dtype) for name, leaf in kind.spec().items()}
    answers = jnp.zeros((1, 9 + 4 + 1, 6))
    constants = Constants(jnp.zeros(3), jnp.ones(3), {"boxes_per_image": jnp.float32(1)})
    small_one, large = DetectionLoss(2, (24, 24)), DetectionLoss(2, (64, 64))

    def operations(loss, image):
        return str(jax.make_jaxpr(lambda answers: loss.losses(answers, target, {}, constants, image))(answers))

    assert operations(large, jnp.zeros((1, 24, 24, 3))) == operations(small_one, None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"augment": {"sides": [8]}}, "must be two or more rising sides above 0"),
        ({"augment": {"sides": [8, 6]}}, "must be two or more rising sides above 0"),
        (
            {"augment": {"sides": [6, 8], "small_sides": [6], "small_until": [0.5]}},
            "leave out config.augment.small_sides",
        ),
        (
            {"augment": {"sides": [6, 8]}, "task": {"name": "segmentation"}, "model": {"name": "unet"}},
            "does not resize classes of pixels",
        ),
    ],
)
def test_senseless_sides_are_refused_in_one_line(changes, said):
    tree = configs.to_dict(configs.Config())
    for name, values in changes.items():
        tree[name] |= values
    with pytest.raises(ConfigError) as caught:
        configs.from_config_dict(tree)
    assert said in str(caught.value)


def test_sides_must_fit_the_images_and_the_network():
    spec = small.spec_of(made((6, 9)))
    with pytest.raises(ConfigError, match=r"augment\.sides=\(6, 9\) must not be larger than the side of the images, 8"):
        check_sides(spec)
    wide = dataclasses.replace(small.spec_of(made()), image_shape=(8, 16, 3))
    with pytest.raises(ConfigError, match="is for square images, but these are 8x16"):
        check_sides(wide)
