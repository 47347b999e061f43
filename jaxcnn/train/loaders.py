"""The two loaders, which bring examples to the step and have one interface."""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxcnn.config import Data
from jaxcnn.data import bars, order, resident, stream
from jaxcnn.data.batch import Batch, Split
from jaxcnn.learn import programs
from jaxcnn.learn.step_spec import StepSpec
from jaxcnn.machine.extras import need
from jaxcnn.machine.mesh import data_devices, device_scalar, over_data, replicated
from jaxcnn.train.hooks import Shared


def choose_loader(data: Data, splits: Iterable[Split | None]) -> tuple[str, str]:
    """The loader for these splits, resident or stream, and the reason in a few words.

    Raises:
      MissingExtra: it is the stream loader, images have to be decoded, and TensorFlow is not installed.
    """
    known = [split for split in splits if split is not None]
    gib = sum(resident.nbytes(split) for split in known) / 2**30
    decodes = any(stream.filling(split) is None for split in known)
    if data.loader == "stream" and decodes:
        need("tfds", "config.data.loader='stream'", "tensorflow")
    if data.loader != "auto":
        return data.loader, f"as configured; the set takes {gib:.2f} GiB"
    name = "resident" if gib <= data.resident_gib else "stream"
    why = f"the set takes {gib:.2f} GiB, config.data.resident_gib={data.resident_gib:g}"
    if name == "stream" and decodes:
        need("tfds", f"{why}, and the stream loader for larger sets", "tensorflow")
    return name, why


def eval_batch_size(requested: int, spec: StepSpec, mesh: Mesh) -> int:
    """The size of evaluation batches: as requested (0: as the global batch), up to a multiple of the devices."""
    devices = data_devices(mesh)
    return -(-(requested or spec.global_batch_size) // devices) * devices


@dataclasses.dataclass
class ResidentLoader:
    """Keeps every split on the devices; each is put there when it is first used, by this run or an earlier one."""

    spec: StepSpec
    mesh: Mesh
    shared: Shared
    kind = "resident"

    def prepare(self, train: Split) -> None:
        """Put the training split on the devices now, not at the first step."""
        self._load(train)

    @contextlib.contextmanager
    def train_inputs(self, train: Split, first_step: int) -> Iterator[Iterator[Any]]:
        """The second argument of every step from `first_step` on, as an iterator."""
        yield itertools.repeat(self._load(train))

    @contextlib.contextmanager
    def eval_batches(self, split: Split, batch_size: int) -> Iterator[Iterator[Batch]]:
        """Every example once, in order, in batches of `batch_size`; the last batch is padded and masked."""
        gather = programs.eval_batch(self.spec, self.mesh, batch_size, len(split))
        loaded = self._load(split)
        yield (gather(loaded, device_scalar(start, self.mesh)) for start in range(0, len(split), batch_size))

    def _load(self, split: Split) -> resident.Resident:
        return self.shared.resident(split, replicated(self.mesh))


@dataclasses.dataclass
class StreamLoader:
    """Reads batches on the host, decoded through tf.data or copied (`jaxcnn.data.direct`), ahead of the devices.

    Every process reads only the examples that its own devices need.
    """

    spec: StepSpec
    mesh: Mesh
    seed: int
    workers: int = 0
    kind = "stream"

    def __post_init__(self) -> None:
        table = order.storage_positions(
            self.spec.global_batch_size, data_devices(self.mesh), self.spec.optim.accumulate_steps
        )
        self._positions = table.reshape(-1)[local_rows(self.spec.global_batch_size, self.mesh)]

    def prepare(self, train: Split) -> None:
        """Do nothing: batches are read when they are needed."""

    @contextlib.contextmanager
    def train_inputs(self, train: Split, first_step: int) -> Iterator[Iterator[Any]]:
        """The second argument of every step from `first_step` on, as an iterator."""

        spec = self.spec
        shapes, side = spec.augment.shapes, spec.image_shape[0]
        kinds = bars.kinds(np.asarray(train.targets["frame"]), shapes, side) if shapes else None

        def index_of_batch(step: int) -> np.ndarray:
            of_batch = spec.global_batch_size, spec.train_examples, kinds
            return order.example_index(self.seed, step, self._positions, *of_batch)

        with self._stream(train, index_of_batch, first_step, self.spec.total_steps, self._positions) as batches:
            yield batches

    @contextlib.contextmanager
    def eval_batches(self, split: Split, batch_size: int) -> Iterator[Iterator[Batch]]:
        """Every example once, in order, in batches of `batch_size`; the last batch is padded and masked."""

        positions = local_rows(batch_size, self.mesh).astype(np.int32)

        def index_of_batch(number: int) -> np.ndarray:
            return np.minimum(number * batch_size + positions, len(split) - 1)

        with self._stream(split, index_of_batch, 0, -(-len(split) // batch_size), positions) as batches:
            yield (
                dataclasses.replace(batch, mask=self._shared(number * batch_size + positions < len(split)))
                for number, batch in enumerate(batches)
            )

    @contextlib.contextmanager
    def _stream(
        self, split: Split, index_of_batch: Any, first: int, last: int, positions: np.ndarray
    ) -> Iterator[Iterator[Batch]]:
        with contextlib.closing(stream.stream(split, index_of_batch, first, last, self.workers)) as host_batches:
            yield stream.device_prefetch(host_batches, lambda host: self._put(*host, positions))

    def _put(self, image: np.ndarray, target: Any, index: np.ndarray, positions: np.ndarray) -> Batch:
        batch = Batch(image, target, index.astype(np.int32), positions, np.ones(len(image), bool))
        return jax.tree.map(self._shared, batch)

    def _shared(self, own: np.ndarray) -> jax.Array:
        """The global array, from the rows of this process, which belong to its own devices."""
        return jax.make_array_from_process_local_data(over_data(self.mesh), own)


def local_rows(batch_size: int, mesh: Mesh) -> np.ndarray:
    """The rows of a batch that the devices of this process hold: ascending integers."""
    rows = np.arange(batch_size)
    held = over_data(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([rows[index] for index in held]))


Loader = ResidentLoader | StreamLoader


def make_loader(kind: str, spec: StepSpec, mesh: Mesh, seed: int, workers: int, shared: Shared | None = None) -> Loader:
    """The loader of a kind, "resident" or "stream"; `shared` has the data that runs in this process share."""
    if kind == "resident":
        return ResidentLoader(spec, mesh, shared or Shared())
    return StreamLoader(spec, mesh, seed, workers)
