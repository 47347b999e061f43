"""VGG16 with BatchNorm (Simonyan & Zisserman 2014, arXiv 1409.1556) on CIFAR-100.

    python -m jaxcnn.main --config=configs/vgg16_cifar100.py

Ashraf et al. report 68.9 % test accuracy.

Variants: `:paper` is the paper's batch size and learning rate, `:strong` what the strongest published recipes have, for
a GPU (`recipes.strong`; not measured yet), `:cores` a run on two CPU cores (`recipes.muon_cores`): 71.80 % (seed 0, 16
epochs, jax 0.10.2; `results/vgg16_cifar100_cores`), `:smoke` the same code path in seconds, also as `:strong+smoke`.
"""

from jaxcnn.config import recipes


def get_config(variant: str = ""):
    config = recipes.usual("vgg16", "tfds:cifar100")
    return recipes.apply_variant(config, variant, strong=recipes.strong, cores=recipes.muon_cores)
