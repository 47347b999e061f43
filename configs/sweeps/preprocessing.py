"""The effect of augmentation: one architecture, VGG16 on CIFAR-10, with seven ways to prepare its images.

    python -m jaxcnn.sweep --config=configs/sweeps/preprocessing.py --workdir=runs/preprocessing

None, normalisation, crop and flip, and in addition to those cutout, mixup, CutMix and RandAugment; three seeds each.

Variants: `:cores`, in half an hour on two CPU cores, on a fifth of the real images at half their side, with a quarter
of the channels; `:smoke`, in minutes: AlexNet's small form, a few steps on the handwritten digits.
"""

from jaxcnn.config import recipes
from jaxcnn.study import sweeps


def get_config(variant: str = ""):
    config = recipes.usual("vgg16", "tfds:cifar10")
    config.augment.crop = "none"
    config.augment.flip = "none"
    return recipes.apply_variant(config, variant, paper=None, cores=cores, smoke=smoke)


def cores(config):
    sweeps.cores(config)
    config.schedule.warmup = 1.0
    config.run.epochs = 10.0


def smoke(config):
    sweeps.smoke(config)
    config.model.name = "alexnet"
    config.optim.learning_rate = 0.05


def get_sweep(variant: str = ""):
    return sweeps.preprocessing(small=variant == "smoke", cutout=16 if variant == "" else 8)
