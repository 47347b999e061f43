"""The layouts of weights in other libraries, and ours: "kh kw i o" for convolutions, "o i" for dense layers.

A dense layer that sees pixels reads (row, column, channel) here and in Keras, and (channel, row, column) in PyTorch.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from jaxcnn.config import Model
from jaxcnn.config.networks import TWO_STAGE
from jaxcnn.weights import names

Weights = Float[np.ndarray, "..."]

# The names of our arrays in a naming.
_TORCH = {"kernel": "weight", "bias": "bias", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_KERAS = {"kernel": "kernel", "bias": "bias", "scale": "gamma", "mean": "moving_mean", "var": "moving_variance"}
_DENSE = (".block.3.weight", ".block.5.weight", ".mlp.fc1.weight", ".mlp.fc2.weight")  # where we have convolutions
_IGNORED = ("num_batches_tracked",)  # PyTorch counts the batches of each BatchNorm
_WHOLE = ("layer_scale", "gamma")  # PyTorch's modules that are one array, which has their name
BLUE_FIRST = ("caffe",)  # namings whose networks read BGR images
FOCUSED = ("yolox", "params/stem_conv/conv/kernel")  # a naming, and its kernel that sees four BGR pixels as one
FIRST = ("stem_conv", "conv1", "block1_conv1")  # our names of the layer that sees the image
OURS = "jaxcnn"
# For two-stage detectors: layers with outputs of classes, and outputs per class; what the first dense layer sees.
OF_CLASSES = {"box_logits": 1, "box_boxes": 4, "mask_logits": 1}
CLASS_END = "_class_out"  # end of the names of such layers in the head of a detector of one stage
OF_ALL_CLASSES = {  # which of these layers are shared by all classes, by `model.class_agnostic`
    "none": (),
    "boxes": ("box_boxes",),
    "masks": ("mask_logits",),
    "both": ("box_boxes", "mask_logits"),
}
PYRAMID = "params/pyramid_out0/kernel"
TRANSPOSED = "mask_up/kernel"


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One array of a network.

    Attributes:
      key: our name, such as "params/conv1/kernel".
      shape: shape in our layout.
      theirs: names in a file; the first is the one that is written.
      pixels: channels of a pixel, for a dense kernel that sees pixels; else 0.
      is_first: whether it is the kernel of the first layer, which sees the image.
      is_head: whether it belongs to a layer whose outputs belong to classes.
      of_class: outputs of such a layer for each class; as many more, the first ones, belong to the background
        where `background`.
    """

    key: str
    shape: tuple[int, ...]
    theirs: tuple[str, ...]
    pixels: int
    is_first: bool
    is_head: bool
    of_class: int = 1
    background: bool = False


def leaves(
    naming: str, model: Model, shapes: Mapping[str, tuple[int, ...]], head: str = "classifier"
) -> list[Leaf] | None:
    """The arrays of a network with their names in a naming; None if that naming has no such network.

    Args:
      naming: one of `names.NAMINGS`, or "jaxcnn".
      model: the network.
      shapes: the shape of each array, keyed as "params/conv1/kernel", in any order.
      head: the name of the module that makes the outputs.
    """
    paths = {key: key.split("/", 1)[1].rpartition("/")[::2] for key in shapes}
    modules = list(dict.fromkeys(module for module, _ in paths.values()))
    named = None if naming == OURS else names.of(naming, model, modules)
    if naming != OURS and named is None:
        return None
    convolutions = sorted(key for key, shape in shapes.items() if key.endswith("/kernel") and len(shape) == 4)
    made = []
    for key, (module, leaf) in paths.items():
        theirs = (key,) if named is None else tuple(_written(naming, each, leaf) for each in named[module])
        # A network whose first dense layer sees pixels has its convolutions in the order of their names.
        seen = PYRAMID if module == "box_dense1" else convolutions[-1] if convolutions else ""
        sees_pixels = module in ("dense1", "box_dense1") and leaf == "kernel" and seen
        channels = shapes[seen][-1] if sees_pixels else 0
        pixels = channels if 0 < channels < shapes[key][-1] and shapes[key][-1] % channels == 0 else 0
        is_first = module in FIRST and leaf == "kernel" and len(shapes[key]) == 4
        if model.name in TWO_STAGE:
            of_class = OF_CLASSES.get(module, 1)
            is_head = module in OF_CLASSES and module not in OF_ALL_CLASSES[model.class_agnostic]
        else:
            is_head, of_class = module == head or (module.startswith(f"{head}/") and module.endswith(CLASS_END)), 1
        made.append(
            Leaf(key, shapes[key], theirs, pixels, is_first, is_head, of_class, is_head and model.name in TWO_STAGE)
        )
    return made


def _written(naming: str, module: str, leaf: str) -> str:
    if naming == "keras":
        return f"{module}/{_KERAS[leaf]}"
    if naming == "caffe":
        return f"{module}/{'weights' if leaf == 'kernel' else leaf}"
    return module if module.rpartition(".")[2] in _WHOLE else f"{module}.{_TORCH[leaf]}"


def plain(naming: str, name: str) -> str:
    """The name of an array in a file without what files add: PyTorch's wrappers, the ":0" of TensorFlow."""
    if naming == "keras":
        name = name.removesuffix(":0")
        parts = name.split("/")
        return "/".join(parts[-2:])
    if naming in ("caffe", OURS):
        return name
    for prefix in ("module.", "model.", "_orig_mod."):  # DataParallel, Lightning, torch.compile
        name = name.removeprefix(prefix)
    return name


def is_ignored(name: str) -> bool:
    """Whether an array in a file is not a weight of a network."""
    return name.rpartition(".")[2] in _IGNORED


def to_ours(naming: str, leaf: Leaf, value: Weights) -> Weights:
    """An array of a file in our layout; its shape may still differ from that of `leaf`."""
    if naming != OURS and leaf.key.endswith("/layer_scale/scale"):
        value = value.reshape(-1)
    if naming != OURS and leaf.key.endswith("/kernel"):
        if naming in ("keras", "caffe"):
            value = value.T if len(leaf.shape) == 2 and value.ndim == 2 else value
        elif value.ndim == 2 and len(leaf.shape) == 4:  # a 1x1 convolution that is a dense layer in the other library
            value = value.T[None, None]
        elif value.ndim == 4 and len(leaf.shape) == 4:  # a transposed convolution, whose inputs come first
            value = value.transpose(2, 3, 0, 1) if leaf.key.endswith(TRANSPOSED) else value.transpose(2, 3, 1, 0)
        elif value.ndim == 3:
            value = value.T
        elif value.ndim == 4:  # a dense layer that is a convolution in the other library
            value = value.transpose(0, 2, 3, 1).reshape(len(value), -1)
        elif leaf.pixels and value.shape[-1] % leaf.pixels == 0:
            value = value.reshape(len(value), leaf.pixels, -1).swapaxes(1, 2).reshape(len(value), -1)
        if naming in BLUE_FIRST and leaf.is_first:
            value = value[:, :, ::-1]
        value = _of_other_colours(value) if (naming, leaf.key) == FOCUSED else value
    return np.ascontiguousarray(value)


def _of_other_colours(kernel: Weights) -> Weights:
    """A kernel for four RGB pixels from one for BGR, or the other way round."""
    return kernel.reshape(*kernel.shape[:2], 4, -1, kernel.shape[-1])[:, :, :, ::-1].reshape(kernel.shape)


def _is_convolution(naming: str, name: str) -> bool:
    """Whether another library has a convolution with this name where we have a dense layer."""
    if naming == "timm":
        return name.startswith("pre_logits.") or ".se." in name
    return ".block." in name and name.endswith((".fc1.weight", ".fc2.weight"))


def to_theirs(naming: str, leaf: Leaf, value: Weights) -> Weights:
    """The inverse of `to_ours`."""
    if naming == "torchvision" and leaf.key.endswith("/layer_scale/scale"):
        value = value.reshape(-1, 1, 1)
    if naming != OURS and leaf.key.endswith("/kernel"):
        if naming in BLUE_FIRST and leaf.is_first:
            value = value[:, :, ::-1]
        value = _of_other_colours(value) if (naming, leaf.key) == FOCUSED else value
        if naming in ("keras", "caffe"):
            value = value.T if value.ndim == 2 else value
        elif value.ndim == 4 and leaf.theirs[0].endswith(_DENSE):
            value = value[0, 0].T
        elif value.ndim == 4:
            value = value.transpose(2, 3, 0, 1) if leaf.key.endswith(TRANSPOSED) else value.transpose(3, 2, 0, 1)
        elif value.ndim == 3:
            value = value.T
        elif _is_convolution(naming, leaf.theirs[0]):
            side = round((value.shape[1] / leaf.pixels) ** 0.5) if leaf.pixels else 1
            value = value.reshape(len(value), side, side, -1).transpose(0, 3, 1, 2)
        elif leaf.pixels:
            value = value.reshape(len(value), -1, leaf.pixels).swapaxes(1, 2).reshape(len(value), -1)
    return np.ascontiguousarray(value)
