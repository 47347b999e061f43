"""The stream loader, through tf.data and direct: exact batches from any step, errors as they were, a prompt end."""

import importlib.util
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from jaxcnn.config import Data, UserError
from jaxcnn.data.direct import DirectStream
from jaxcnn.data.order import example_index
from jaxcnn.data.source import open_splits
from jaxcnn.data.stream import device_prefetch, stream
from jaxcnn.machine import mesh as meshes

needs_tensorflow = pytest.mark.skipif(not importlib.util.find_spec("tensorflow"), reason="needs TensorFlow")

BATCH = 10


@pytest.fixture(scope="module")
def split():
    return open_splits(Data(source="synthetic:6x5x3:4:64", protocol="full")).train


def index_of_batch(step):
    return example_index(0, step, np.arange(BATCH), BATCH, 64)


class Slow:
    """A split that takes its time, fails at chosen indices, and counts its reads."""

    def __init__(self, split, seconds=0.0, bad=()):
        self.split, self.seconds, self.bad = split, seconds, set(bad)
        self.targets, self.image_shape, self.dtype = split.targets, split.image_shape, split.dtype
        self.reads = 0

    def read(self, indices):
        self.reads += 1
        time.sleep(self.seconds * np.random.default_rng(int(indices[0])).random())
        for index in indices:
            if int(index) in self.bad:
                raise UserError(f"cannot read image {index}")
        return self.split.read(indices)


class Filling(Slow):
    """The same, of images that need no decoding."""

    def fill(self, indices, out):
        out[...] = self.read(indices)


@pytest.fixture(params=[pytest.param(Slow, marks=needs_tensorflow), Filling])
def way(request):
    return request.param


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_are_those_of_read_bit_for_bit_and_in_order(split, way, workers):
    with stream(way(split, 0.01), index_of_batch, 0, 13, workers) as batches:
        assert isinstance(batches, DirectStream) == (way is Filling)
        for step, (images, labels, indices) in enumerate(batches):
            assert images.dtype == np.uint8 and labels.dtype == np.int32 and indices.dtype == np.int32
            assert (indices == index_of_batch(step)).all()
            assert (images == split.read(indices)).all()
            assert (labels == split.targets[indices]).all()
        assert step == 12


def test_a_stream_begun_at_any_step_is_the_tail_of_one_begun_at_the_first(split, way):
    with stream(way(split), index_of_batch, 0, 9, 2) as batches:
        whole = list(batches)
    for first in (1, 4, 8):
        with stream(way(split), index_of_batch, first, 9, 3, prefetch=1) as batches:
            tail = list(batches)
        assert len(tail) == 9 - first
        for one, other in zip(whole[first:], tail, strict=True):
            assert all((a == b).all() for a, b in zip(one, other, strict=True))


def test_no_steps_give_no_batches(split, way):
    assert list(stream(way(split), index_of_batch, 5, 5)) == []


def test_an_unreadable_image_is_raised_as_it_was_after_the_batches_before_it(split, way, capfd):
    bad = int(index_of_batch(3)[7])
    assert all(bad not in index_of_batch(step) for step in range(3))
    for _ in range(3):
        given = 0
        with (
            pytest.raises(UserError, match=f"^cannot read image {bad}$"),
            stream(way(split, 0.001, [bad]), index_of_batch, 0, 50, 3) as batches,
        ):
            for _ in batches:
                given += 1
        assert given == 3
    assert capfd.readouterr() == ("", "")


def test_a_fault_in_the_order_is_raised_as_it_was(split, way):
    def order(step):
        if step == 2:
            raise ZeroDivisionError("step 2")
        return index_of_batch(step)

    with stream(way(split), order, 0, 9) as batches:
        next(batches), next(batches)
        with pytest.raises(ZeroDivisionError, match="step 2"):
            next(batches)
        with pytest.raises(StopIteration):
            next(batches)


def test_batches_of_unequal_size_are_refused(split, way):
    with (
        stream(way(split), lambda step: np.arange(4 + step), 0, 3) as batches,
        pytest.raises(ValueError, match=r"shape \(5,\)"),
    ):
        list(batches)


def test_closing_is_prompt_and_stops_reading(split, way):
    slow = way(split, 0.05)
    batches = stream(slow, index_of_batch, 0, 10**9, 2, prefetch=4)
    next(batches)
    begin = time.monotonic()
    batches.close()
    assert time.monotonic() - begin < 2  # reads that have begun take 0.05 s
    reads = slow.reads
    time.sleep(0.3)
    assert slow.reads <= reads + 2
    assert next(batches, None) is None
    batches.close()


def test_prefetch_is_bounded(split, way):
    slow = way(split)
    with stream(slow, index_of_batch, 0, 10**9, 1, prefetch=2) as batches:
        next(batches)
        time.sleep(0.5)
        assert slow.reads < 20  # pieces of half a batch: some three batches ahead of the first


@needs_tensorflow
@pytest.mark.parametrize("ending", ["pass", "raise SystemExit(2)", "batches.close()"])
def test_a_program_ends_whatever_becomes_of_the_stream(ending):
    program = f"""
import numpy as np, time
from jaxcnn.config import Data
from jaxcnn.data.source import open_splits
from jaxcnn.data.stream import stream
split = open_splits(Data(source="synthetic:6x5x3:4:64", protocol="full")).train
class Slow:
    targets, image_shape, dtype = split.targets, split.image_shape, split.dtype
    def read(self, indices):
        time.sleep(0.02)
        return split.read(indices)
batches = stream(Slow(), lambda step: np.arange(4), 0, 10**9, 2)
next(batches)
{ending}
"""
    result = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, text=True)
    assert result.returncode == (2 if "SystemExit" in ending else 0)
    assert result.stderr == ""


def test_a_program_ends_soon_with_a_direct_stream_open():
    program = """
import numpy as np, threading, time
from jaxcnn.data.stream import stream
class Slow:
    targets, image_shape, dtype = np.zeros(4), (1, 1, 1), np.dtype("uint8")
    def fill(self, indices, out):
        time.sleep(0.3 if threading.main_thread().is_alive() else 99)
batches = stream(Slow(), lambda step: np.arange(4), 0, 10**9, 2)
next(batches)
"""
    result = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_an_array_of_a_direct_stream_is_used_again_only_when_nobody_holds_its_batch(split):
    over_two = meshes.over_data(meshes.make_mesh(2))
    held = []
    with stream(Filling(split), index_of_batch, 0, 40, 2, prefetch=1) as batches:
        for step, (images, *_) in enumerate(batches):
            if step % 2:  # on CPU, the devices' arrays may be this memory
                held += [
                    (step, jax.device_put(images)),
                    (step, jax.make_array_from_process_local_data(over_two, images)),
                ]
    for step, images in held:
        assert (np.asarray(images) == split.read(index_of_batch(step))).all()
    places = set()
    with stream(Filling(split), index_of_batch, 0, 40, 2, prefetch=1) as batches:
        for images, *_ in batches:
            places.add(images.ctypes.data)
    assert len(places) <= 4  # two ahead, the one in hand, and the one before it


def test_images_in_memory_are_streamed_without_tensorflow_and_with_the_bits_of_read():
    split = open_splits(Data(source="digits", protocol="full", train_split="train[7:]+test[:50]", test_split="")).train

    def order(step):
        return example_index(3, step, np.arange(64), 64, len(split))

    with stream(split, order, 20, 30) as batches:
        assert isinstance(batches, DirectStream)
        for step, (images, labels, indices) in enumerate(batches, 20):
            assert (indices == order(step)).all() and (labels == split.targets[indices]).all()
            assert images.tobytes() == split.read(indices).tobytes()


def test_device_prefetch_puts_ahead_in_order_and_closes_what_it_reads():
    put, closed = [], []

    def source():
        try:
            yield from range(6)
        finally:
            closed.append(True)

    batches = device_prefetch(source(), lambda item: put.append(item) or item * 10, depth=2)
    assert next(batches) == 0 and put == [0, 1, 2]
    assert next(batches) == 10 and put == [0, 1, 2, 3]
    batches.close()
    assert closed == [True]
    assert list(device_prefetch(range(5), lambda item: item, depth=3)) == [0, 1, 2, 3, 4]
    assert list(device_prefetch([], lambda item: item)) == []


def test_device_prefetch_gives_what_came_before_an_error():
    def source():
        yield from range(3)
        raise UserError("bad image")

    given = []
    with pytest.raises(UserError, match="bad image"):
        for item in device_prefetch(source(), lambda item: item, depth=2):
            given.append(item)
    assert given == [0, 1, 2]


def test_a_stream_that_is_dropped_stops_reading(split, way):
    slow = way(split, 0.01)
    batches = stream(slow, index_of_batch, 0, 10**9, 2)
    next(batches)
    del batches
    reads = slow.reads
    time.sleep(0.3)
    assert slow.reads <= reads + 2


def test_no_thread_of_ours_outlives_a_stream(split, way):
    with stream(way(split), index_of_batch, 0, 3) as batches:
        list(batches)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("jaxcnn")]
