"""The interface between data and training: a batch of examples, and a split that can be read at any index.

An annotation such as `UInt8[Array, "b h w c"]` (jaxtyping) gives the element type and the dimensions of an array. It is
for readers and for mypy; nothing checks it while a program runs. `Any` in place of `Array` means JAX or NumPy arrays,
tracers, or the shapes for which a step is compiled. These names of dimensions mean the same everywhere:

    b           examples of a batch, or of one device's shard of it
    n, m        examples of a split, or of another list of images; some of them
    h, w, c     height, width and channels of images
    oh, ow, o   height, width and channels of the outputs of a layer
    kh, kw, i   height, width and input channels of a kernel; i is c / groups
    k           classes
    d           devices

`...`, or a name after `*`, is any number of dimensions, also none.
"""

from typing import Any, Protocol

import flax.struct
import numpy as np
from jaxtyping import Bool, Float32, Int32, Shaped

from jaxcnn.data.examples import Indices, Pixels

Integers = Int32[Any, " b"]
Channels = Float32[Any, " c"]


@flax.struct.dataclass
class Batch:
    """A batch, or one device's shard of it.

    Attributes:
      image: the pixels.
      target: the answers, a pytree (`jaxcnn.tasks.task.Targets`); for classification, int32 class numbers.
      index: index of the example in its split.
      position: position in the global batch, independent of the place in memory. All randomness of an example is keyed
        by it, so devices, microbatches and hosts do not change how an example is processed.
      mask: False for padding.
    """

    image: Shaped[Any, "b h w c"]
    target: Any
    index: Integers
    position: Integers
    mask: Bool[Any, " b"]


class Split(Protocol):
    """One split of a set, which can be read in any order. Attributes are known without decoding images.

    Attributes:
      name: "train", "val" or "test".
      description: text for messages and records, such as "tfds:cifar10/train[5000 held out]".
      targets: the answers for all examples, a pytree of arrays [n, ...]; for classification, int32 class numbers.
      class_names: one per class.
      image_shape: (H, W, C) of every image, after resizing.
      dtype: type of the pixels: uint8, uint16 or float32.
    """

    name: str
    description: str
    targets: Any
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    dtype: np.dtype

    def __len__(self) -> int: ...

    def read(self, indices: Indices) -> Pixels:
        """The images at these indices. Safe to call from several threads."""
        ...


@flax.struct.dataclass
class Constants:
    """Inputs of the step that are the same in every step of a run.

    Attributes:
      mean, std: mean and standard deviation of each channel, in units of [0, 1] pixels (or of floats); 0 and 1 change
        nothing.
      task: the arrays of `jaxcnn.tasks.task.Loss.constants`, by name.
    """

    mean: Channels
    std: Channels
    task: dict[str, Any] = flax.struct.field(default_factory=dict)
