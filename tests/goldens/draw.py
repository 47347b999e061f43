"""Deterministic weights and batches, the same for PyTorch and JAX, so that no golden file has to hold them.

numpy alone, because both `make_torch_goldens.py` and `tests/test_torch_parity.py` import it. Everything is float64.
Names and shapes are jaxcnn's: "block1_1/conv1/kernel", kernels `[height, width, in, out]` or `[out, in]`.
"""

import zlib

import numpy as np

SGD = {"learning_rate": 0.0002, "momentum": 0.9, "weight_decay": 5e-2}  # Nesterov; weight decay on kernels only
STEPS = 5
BATCH = 8
CLASSES = 5
WIDTH = 1 / 16
PROJECTIONS = 3

# case: (fields of config.Model, image side)
CASES: dict[str, tuple[dict, int]] = {
    "alexnet_cifar": ({"name": "alexnet", "batch_norm": False}, 32),
    "alexnet_cifar_bn": ({"name": "alexnet"}, 32),
    "alexnet_imagenet": ({"name": "alexnet", "form": "imagenet", "batch_norm": False}, 127),
    "vgg16_cifar": ({"name": "vgg16", "batch_norm": False}, 32),
    "vgg16_cifar_bn": ({"name": "vgg16"}, 32),
    "vgg16_cifar_dense4096": ({"name": "vgg16", "head": "dense4096"}, 32),
    "vgg16_imagenet_bn": ({"name": "vgg16", "form": "imagenet"}, 64),
    "resnet50_cifar": ({"name": "resnet50"}, 16),
    "resnet50_imagenet": ({"name": "resnet50", "form": "imagenet"}, 64),
}
# The same, of which only the logits in evaluation are kept: all else is in a case above. An odd side is halved.
FORWARD_CASES: dict[str, tuple[dict, int]] = {
    "resnet50_cifar_pooled": ({"name": "resnet50", "last_stride": 1, "shortcut": "pooled"}, 10),
}

# Networks at full width, as other libraries have them: case: (fields of config.Model, image side). Sides that rounding
# up, an odd size or padding at the end makes a difference for.
FAMILY_CASES: dict[str, tuple[dict, int]] = {
    "resnet18": ({"name": "resnet18", "form": "imagenet"}, 33),
    "resnet18d": ({"name": "resnet18", "form": "imagenet", "shortcut": "pooled", "stem": "deep"}, 37),
    "resnet20": ({"name": "resnet20"}, 10),
    "mobilenet_v2": ({"name": "mobilenet_v2", "form": "imagenet"}, 40),
    "efficientnet_lite0": ({"name": "efficientnet_lite0", "form": "imagenet"}, 40),
    "squeezenet1_0": ({"name": "squeezenet1_0", "form": "imagenet"}, 37),
    "squeezenet1_1": ({"name": "squeezenet1_1", "form": "imagenet"}, 36),
    "efficientnet_b0": ({"name": "efficientnet_b0", "form": "imagenet"}, 40),
    "convnext_tiny": ({"name": "convnext_tiny", "form": "imagenet"}, 38),
}

# `make test` holds the gradients of these alone; those of all take two minutes more, in `make test-services`.
WITH_GRADIENTS = ("resnet20", "squeezenet1_1")


def generator(*names: str) -> np.random.Generator:
    """A generator seeded by names: no value depends on the order in which values are drawn."""
    return np.random.default_rng(zlib.crc32("/".join(names).encode()))


def leaf(case: str, collection: str, path: str, shape: tuple[int, ...]) -> np.ndarray:
    """The leaf `path` of "params" or "batch_stats" of a case, at a scale that keeps the signal alive."""
    normal = generator(case, collection, path).standard_normal(shape)
    name = path.rsplit("/", 1)[-1]
    if name == "kernel":
        outputs = shape[0] if len(shape) == 2 else shape[-1]
        return normal * np.sqrt(2 * outputs / np.prod(shape))
    if name in ("scale", "var"):
        return 1 + 0.2 * np.tanh(normal)
    return 0.1 * normal  # bias, mean


def batch(case: str, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Images [BATCH, side, side, 3] and int labels [BATCH]."""
    rng = generator(case, "batch")
    return rng.standard_normal((BATCH, side, side, 3)), rng.integers(0, CLASSES, BATCH)


def fingerprint(path: str, value: np.ndarray) -> np.ndarray:
    """[1 + PROJECTIONS]: the norm of a leaf and its products with random vectors of norm about 1.

    A leaf that differs by d from another differs in each product by about |d| / sqrt(size) times a standard normal,
    so no error of a leaf hides from all of them.
    """
    vectors = generator("projection", path).standard_normal((PROJECTIONS, value.size)) / np.sqrt(value.size)
    return np.concatenate([[np.linalg.norm(value)], vectors @ np.ravel(value)])
