"""jaxcnn's two loaders in `benchmarks.input`; their batches are augmented and ready for the network."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxcnn.config as configs
from benchmarks import jaxcnn_tasks, loaders
from benchmarks.serve import Task
from jaxcnn.data import augment, order, resident, stream, turbo_jpeg
from jaxcnn.data.batch import Batch, Split
from jaxcnn.data.examples import read_in_order
from jaxcnn.data.source import open_splits
from jaxcnn.learn.state import step_key
from jaxcnn.learn.step import AUGMENT
from jaxcnn.learn.step_spec import StepSpec, spec_without_data
from jaxcnn.machine import mesh as meshes
from jaxcnn.train.loaders import StreamLoader

facts, device_memory = jaxcnn_tasks.facts, jaxcnn_tasks.device_memory

SEED = 0
QUEUED = 8  # most batches that can be ready when a block begins, in tf.data's queue and on the device


def build(spec: dict[str, Any]) -> Task:
    """Build a loader of `benchmarks.input` and warm it up."""
    if (of_host := OF_HOST.get(spec["task"])) is not None:
        host = of_host(spec["data"], spec["batch_size"])
        host.run(3)
        return host
    config = configs.from_config_dict(
        {
            "global_batch_size": spec["batch_size"],
            "data": spec["data"] | {"protocol": "full", "test_split": ""},
            "augment": {"crop": "zero", "crop_padding": spec["padding"], "flip": "random"},
            "run": {"steps": 10**6},
        }
    )
    split = open_splits(config.data).train
    step_spec = spec_without_data(config, split.image_shape, len(split.class_names), len(split))
    task = {"resident": OnDevice, "stream": Streamed}[spec["task"]](step_spec, split)
    task.run(3)
    return task


class Host(Task):
    """Batches of pixels as they go to a device, from the stream loader's threads."""

    def __init__(self, data: dict[str, Any], batch_size: int) -> None:
        self._data = configs.from_config_dict({"data": loaders.host_data(data)}).data
        self._batch_size, self._left = batch_size, 0
        self._open()

    def _open(self, epochs: int = 10**6) -> None:
        self._split = open_splits(self._data).train
        self._left = epochs * (len(self._split) // self._batch_size)

        def index_of_batch(step: int) -> np.ndarray:
            return order.example_index(SEED, step, np.arange(self._batch_size), self._batch_size, len(self._split))

        self._batches = stream.stream(self._split, index_of_batch, 0, self._left)

    def run(self, steps: int) -> None:
        """Make `steps` batches, one after the other."""
        for _ in range(steps):
            next(self._batches)

    def settle(self) -> None:
        """Take the batches that are ready."""
        self.run(QUEUED)


class Decoded(Host):
    """Decodes the JPEGs in every epoch."""

    def __init__(self, data: dict[str, Any], batch_size: int) -> None:
        super().__init__(data | {"cache": ""}, batch_size)


class Pillow(Decoded):
    """Decodes the JPEGs in every epoch with Pillow alone, without the extra `[jpeg]`."""

    def __init__(self, data: dict[str, Any], batch_size: int) -> None:
        turbo_jpeg.decode = lambda *_: None  # this process measures nothing else
        super().__init__(data, batch_size)


class First(Host):
    """Makes every epoch a first one: JPEGs are decoded, and kept in a new file."""

    def _open(self, epochs: int = 1) -> None:
        for file in pathlib.Path(self._data.cache).glob("*.bin"):
            file.unlink()
        super()._open(epochs)

    def run(self, steps: int) -> None:
        """Make `steps` batches in the current epoch."""
        for _ in range(steps):
            if not self._left:
                self._batches.close()
                self._open()
            super().run(1)
            self._left -= 1

    def settle(self) -> None:
        """Begin an epoch, with a new file."""
        self._batches.close()
        self._open()


class Later(Host):
    """Reads images that are already in the file."""

    def _open(self, epochs: int = 10**6) -> None:
        split = open_splits(self._data).train
        for _ in read_in_order(split.read, len(split), split.image_shape):
            pass
        super()._open(epochs)


OF_HOST = {"pillow": Pillow, "decoded": Decoded, "first": First, "later": Later}


class _Loader(Task):
    def __init__(self, step_spec: StepSpec, split: Split) -> None:
        self._program, self._examples, self._number = step_spec, len(split), 0
        self._mesh = meshes.make_mesh(1)
        self._mean = jnp.array(jaxcnn_tasks.MEAN, jnp.float32)
        self._std = jnp.array(jaxcnn_tasks.STD, jnp.float32)

    def _augmented(self, batch: Batch, number: jax.Array) -> jax.Array:
        """The augmented images of a batch, float32 [B, H, W, C], as in the training step."""
        key = jax.random.fold_in(step_key(SEED, number), AUGMENT)
        return augment.augment(
            self._program.augment, self._program.task.targets, batch, key, self._mean, self._std
        ).image

    def _next(self) -> jax.Array:
        raise NotImplementedError

    def run(self, steps: int) -> None:
        """Make batches; wait for each batch only after the next one has started."""
        waiting = self._next()
        for _ in range(steps - 1):
            batch = self._next()
            waiting.block_until_ready()
            waiting = batch
        waiting.block_until_ready()


class OnDevice(_Loader):
    """The resident loader: the set is on the device; order, gather and augmentation are one program."""

    def __init__(self, step_spec: StepSpec, split: Split) -> None:
        super().__init__(step_spec, split)
        self._data = resident.load(split, meshes.replicated(self._mesh))
        self._make = jax.jit(self._gathered)

    def _gathered(self, data: resident.Resident, number: jax.Array) -> jax.Array:
        batch_size = self._program.global_batch_size
        position = jnp.arange(batch_size, dtype=np.int32)
        index = order.example_index(SEED, number, position, batch_size, self._examples)
        return self._augmented(resident.gather(data, index, position), number)

    def _next(self) -> jax.Array:
        self._number += 1
        return self._make(self._data, np.int32(self._number))


class Streamed(_Loader):
    """The stream loader: batches come through tf.data; the device augments them."""

    def __init__(self, step_spec: StepSpec, split: Split) -> None:
        super().__init__(step_spec, split)
        loader = StreamLoader(step_spec, self._mesh, SEED)
        self._open = loader.train_inputs(split, 0)  # kept alive, because its end closes the stream
        self._batches = self._open.__enter__()
        self._make = jax.jit(self._augmented)

    def _next(self) -> jax.Array:
        self._number += 1
        return self._make(next(self._batches), np.int32(self._number))

    def settle(self) -> None:
        """Take the batches that are ready."""
        self.run(QUEUED)
