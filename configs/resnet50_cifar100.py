"""ResNet50 (He et al. 2015, arXiv 1512.03385) with a 3x3 stem on CIFAR-100.

    python -m jaxcnn.main --config=configs/resnet50_cifar100.py

Ashraf et al. report 73.1 % test accuracy.

Variants: `:paper` is the paper's batch size and learning rate, `:strong` what the strongest published recipes have, for
a GPU (`recipes.strong`), `:cores` a run on two CPU cores (`recipes.muon_cores`), neither measured yet, `:smoke` the
same code path in seconds, also as `:strong+smoke`.
"""

from jaxcnn.config import recipes


def get_config(variant: str = ""):
    config = recipes.usual("resnet50", "tfds:cifar100")
    return recipes.apply_variant(config, variant, strong=recipes.strong, cores=recipes.muon_cores)
