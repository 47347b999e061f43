"""VGG16 with BatchNorm (Simonyan & Zisserman 2014, arXiv 1409.1556) on CIFAR-10.

    python -m jaxcnn.main --config=configs/vgg16_cifar10.py

Ashraf et al. report 92.7 % test accuracy.

Variants: `:paper` is the paper's batch size and learning rate, `:smoke` the same code path in seconds.
"""

from jaxcnn.config import recipes


def get_config(variant: str = ""):
    config = recipes.strong("vgg16", "tfds:cifar10")
    return recipes.apply_variant(config, variant)
