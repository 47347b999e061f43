"""The interface between data and training: a batch of examples, and a split that can be read at any index."""

from typing import Any, Protocol

import flax.struct
import numpy as np


@flax.struct.dataclass
class Batch:
    """A batch, or one device's shard of it.

    Attributes:
      image: uint8 [B, H, W, C].
      label: int32 [B].
      index: int32 [B], index of the example in its split.
      position: int32 [B], position in the global batch, independent of the place in memory. All randomness of an
        example is keyed by it, so devices, microbatches and hosts do not change how an example is processed.
      mask: bool [B], False for padding.

    The fields are JAX or NumPy arrays, tracers, or the shapes for which a step is compiled.
    """

    image: Any
    label: Any
    index: Any
    position: Any
    mask: Any


class Split(Protocol):
    """One split of a set, readable in any order. Attributes are known without decoding images.

    Attributes:
      name: "train", "val" or "test".
      description: text for messages and records, such as "tfds:cifar10/train[5000 held out]".
      labels: int32 [N].
      class_names: one per class.
      image_shape: (H, W, C) of every image, after resizing.
    """

    name: str
    description: str
    labels: np.ndarray
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]

    def __len__(self) -> int: ...

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Images uint8 [n, H, W, C] at int indices [n]. Safe to call from several threads."""
        ...


@flax.struct.dataclass
class Normalization:
    """Mean and standard deviation per channel, float32 [C], in units of [0, 1] pixels; 0 and 1 change nothing."""

    mean: Any
    std: Any
