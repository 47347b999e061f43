"""Attention in one network, ResNet-20 on CIFAR-10: seven methods and none, all else equal.

    python -m jaxcnn.sweep --config=configs/sweeps/attention.py --workdir=runs/attention

Each at the place and with the ratio of its paper, three seeds. The report has accuracy beside parameters,
floating-point operations, memory and time, and says which differences are larger than the spread over seeds.

Variants for two CPU cores, on the handwritten digits with the small CNN: `:smoke`, a few steps, in minutes; `:digits`,
15 epochs at full width.
"""

from jaxcnn.config import recipes
from jaxcnn.study import sweeps


def get_config(variant: str = ""):
    config = recipes.usual("resnet20", "tfds:cifar10")
    return recipes.apply_variant(config, variant, paper=None, smoke=smoke, digits=digits)


def smoke(config):
    sweeps.smoke_small(config)


def digits(config):
    smoke(config)
    config.model.width = 1.0
    config.run.steps = 0
    config.run.epochs = 15.0
    config.run.eval_every_epochs = 1.0
    config.schedule.warmup = 1.0


def get_sweep(variant: str = ""):
    return sweeps.attention(small=variant == "smoke")
