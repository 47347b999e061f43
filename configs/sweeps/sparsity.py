"""Sparsity against accuracy: VGG16 on CIFAR-10 with six shares of its weights at zero, and none.

    python -m jaxcnn.sweep --config=configs/sweeps/sparsity.py --workdir=runs/sparsity
    python -m jaxcnn.report runs/sparsity

The report has the plane of accuracy and parameters that are not zero, with its Pareto front. Weights become zero while
the network trains, by the curve of Zhu & Gupta (arXiv 1710.01878). Three seeds each; on validation alone, as the test
split decides nothing.

Variants: `:filters` has fewer channels in place of zeros, which are quicker too: give both folders to the report, to
compare the two. `:smoke` takes seconds, on the handwritten digits.
"""

from jaxcnn.config import recipes
from jaxcnn.study import spec, sweeps

SPARSITIES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
WIDTHS = (1.0, 0.7, 0.5, 0.35, 0.25)  # of the channels: about their square of the parameters stays


def get_config(variant: str = ""):
    config = recipes.usual("vgg16", "tfds:cifar10")
    config.checkpoint.keep_last = 1
    return recipes.apply_variant(config, variant, paper=None, smoke=smoke, filters=filters)


def smoke(config):
    """Seconds, on the digits."""
    sweeps.smoke(config)
    config.model.name = "cnn"
    config.prune.sparsity = 0.5
    config.prune.every = 5


def filters(config):
    """The unchanged config: only the sweep differs."""


def get_sweep(variant: str = ""):
    if variant == "filters":
        return spec.sweep(spec.values("model.width", WIDTHS), seeds=3)
    if variant == "smoke":
        return spec.sweep(spec.values("prune.sparsity", [0.5, 0.9]), seeds=2)
    return spec.sweep(spec.values("prune.sparsity", SPARSITIES), seeds=3)
