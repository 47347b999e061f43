"""Learning rates, timed by `python -m benchmarks.population` as a population and one after another.

    python -m jaxcnn.sweep --config=configs/sweeps/population.py:small --workdir=runs/population --population=8

Variants: `:small`, eight rates for a small CNN on the handwritten digits; `:large`, four for AlexNet of full width on
images in memory, a few steps each; `:smoke`, four for the CNN, in seconds.
"""

from jaxcnn.config import default, unknown_variant
from jaxcnn.study import spec

VARIANTS = ("small", "large", "smoke")


def get_config(variant: str = "small"):
    config = default()
    config.data.val_examples = 200
    config.schedule.name = "constant"
    config.run.epochs = 0.0
    config.run.tensorboard = False
    config.run.eval_batch_size = 200
    config.run.eval_every_epochs = 10.0
    config.checkpoint.every_epochs = 0.0
    config.checkpoint.keep_last = 1
    config.checkpoint.keep_best = 0
    if variant in ("small", "smoke"):
        config.model.name = "cnn"
        config.data.source = "digits"
        config.global_batch_size = 32
        config.run.steps = 1600 if variant == "small" else 40
    elif variant == "large":
        config.model.name = "alexnet"
        config.data.source = "synthetic:32x32x3:10:2048"
        config.global_batch_size = 128
        config.run.steps = 12
    else:
        raise unknown_variant(variant, VARIANTS)
    return config


def get_sweep(variant: str = "small"):
    rates = [0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4] if variant == "small" else [0.005, 0.01, 0.02, 0.05]
    return spec.sweep(spec.values("optim.learning_rate", rates))
