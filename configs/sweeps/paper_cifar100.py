"""The study of Ashraf et al. on CIFAR-100: three architectures by batch size, and by learning rate.

    python -m jaxcnn.sweep --config=configs/sweeps/paper_cifar100.py --workdir=runs/paper100

Every architecture at batch sizes 32 to 512 with learning rate 0.001, and at learning rates 0.1 to 0.0001 with batch
size 128, three seeds each: 72 trials (those common to both lists run once), with 15 compiled programs.
Optimiser, schedule and length are those of `recipes.paper`.

Variant: `:smoke`, the same study in minutes on two CPU cores: narrow networks, a few steps on the handwritten digits.
"""

from jaxcnn.config import recipes
from jaxcnn.study import sweeps


def get_config(variant: str = ""):
    config = recipes.usual("vgg16", "tfds:cifar100")
    recipes.paper(config)
    return recipes.apply_variant(config, variant, paper=None, smoke=sweeps.smoke)


def get_sweep(variant: str = ""):
    return sweeps.paper(small=variant == "smoke")
