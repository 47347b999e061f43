"""The resident loader: the whole split is in device memory as it is stored, and batches are gathered there."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Shaped

from jaxcnn.data.batch import Batch, Split
from jaxcnn.data.examples import read_in_order
from jaxcnn.machine.mesh import put


@flax.struct.dataclass
class Resident:
    """A split in device memory."""

    image: Shaped[Any, "n h w c"]
    target: Any  # a pytree of arrays [n, ...]


def nbytes(split: Split) -> int:
    """Bytes of device memory that the split needs."""
    targets = sum(leaf.nbytes for leaf in jax.tree.leaves(split.targets))
    return len(split) * int(np.prod(split.image_shape)) * split.dtype.itemsize + targets


def load(split: Split, sharding: jax.sharding.NamedSharding) -> Resident:
    """Read a split and copy it to the devices; the host holds one copy meanwhile. Raises what `Split.read` raises."""
    image = np.empty((len(split), *split.image_shape), split.dtype)
    filled = 0
    for chunk in read_in_order(split.read, len(split), split.image_shape):
        image[filled : filled + len(chunk)] = chunk
        filled += len(chunk)
    return put(Resident(image, split.targets), sharding)


def gather(resident: Resident, index: Int32[Array, " b"], position: Int32[Array, " b"]) -> Batch:
    """The examples at `index`; an index outside the split is padding (mask False)."""
    inside = index < resident.image.shape[0]
    index = jnp.where(inside, index, 0)
    target = jax.tree.map(lambda rows: rows[index], resident.target)
    return Batch(resident.image[index], target, index, position, inside)
