"""ResNet-20 for CIFAR (He et al. 2016, arXiv 1512.03385, section 4.2, shortcuts of option A) on CIFAR-10.

    python -m jaxcnn.main --config=configs/resnet20_cifar10.py

He et al. report 91.25 % test accuracy after 164 epochs. With 270,000 weights the network is small enough for a CPU, and
a trained one is a start for small images of one's own (`config.init.source=workdir:<its folder>`).

Variants: `:cores` is a run on two CPU cores (`recipes.resnet20_cores`), `:smoke` the same code path in seconds.
"""

from jaxcnn.config import recipes


def get_config(variant: str = ""):
    config = recipes.usual("resnet20", "tfds:cifar10")
    config.optim.weight_decay = 1e-4
    return recipes.apply_variant(config, variant, paper=None, cores=recipes.resnet20_cores)
