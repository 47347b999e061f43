"""The order of examples."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.data.order import epoch_of, example_index, storage_positions


def sequence(seed, length, batch_size, examples):
    steps = -(-length // batch_size)
    batches = [example_index(seed, t, np.arange(batch_size), batch_size, examples) for t in range(steps)]
    return np.concatenate(batches)[:length]


@pytest.mark.parametrize(
    ("examples", "batch_size"), [(1, 1), (2, 2), (3, 2), (7, 3), (64, 64), (1437, 100), (50000, 4096)]
)
def test_every_epoch_shows_each_example_once_though_batches_reach_over_its_end(examples, batch_size):
    seen = sequence(5, 3 * examples, batch_size, examples).reshape(3, examples)
    for epoch in seen:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(examples))


def test_epochs_and_seeds_have_orders_of_their_own():
    first, second = sequence(0, 2000, 100, 1000).reshape(2, 1000)
    other_seed = sequence(1, 1000, 100, 1000)
    # Two random permutations agree in one place on average; ten is a chance of about 1e-7.
    assert (first == second).sum() < 10
    assert (first == other_seed).sum() < 10
    assert (first == np.arange(1000)).sum() < 10


def test_every_example_is_as_likely_in_every_place():
    examples, seeds = 10, 4000
    orders = np.stack([sequence(seed, examples, examples, examples) for seed in range(seeds)])
    counts = np.stack([np.bincount(orders[:, place], minlength=examples) for place in range(examples)])
    chi_square = ((counts - seeds / examples) ** 2 / (seeds / examples)).sum()
    # 81 degrees of freedom: mean 81, standard deviation 12.7; five of them allowed.
    assert chi_square < 145


def test_neighbours_in_the_set_are_not_neighbours_in_the_order():
    order = sequence(3, 50000, 128, 50000).astype(np.int64)
    pairs = collections.Counter(np.abs(np.diff(order)).tolist())
    # 2 (N - 1) / N of all N - 1 steps have length one by chance: a Poisson mean of 2.
    assert pairs[1] < 15
    correlation = np.corrcoef(order[:-1], order[1:])[0, 1]
    assert abs(correlation) < 5 / np.sqrt(50000)


def test_numpy_and_jax_give_the_same_integers():
    position = np.arange(96)
    traced = jax.jit(lambda seed, step: example_index(seed, step, jnp.arange(96), 96, 45000))
    for step in (0, 1, 468, 469, 100_000):
        np.testing.assert_array_equal(traced(7, step), example_index(7, step, position, 96, 45000))


def test_an_index_depends_on_its_own_position_only():
    whole = example_index(2, 11, np.arange(64), 64, 999)
    part = example_index(2, 11, np.array([5, 63, 17]), 64, 999)
    np.testing.assert_array_equal(part, whole[[5, 63, 17]])


def test_storage_gives_every_device_its_part_of_every_microbatch():
    np.testing.assert_array_equal(storage_positions(8, 2, 2), [[0, 1, 4, 5], [2, 3, 6, 7]])
    np.testing.assert_array_equal(storage_positions(8, 4), [[0, 1], [2, 3], [4, 5], [6, 7]])


@pytest.mark.parametrize("as_jax", [False, True])
def test_the_epoch_of_a_place_counts_the_examples_before_it(as_jax):
    position = (jnp if as_jax else np).arange(16)
    for step in (0, 2, 4, 100):
        expected = [(step * 16 + place) // 37 for place in range(16)]
        assert np.asarray(epoch_of(step, position, 16, 37)).tolist() == expected
