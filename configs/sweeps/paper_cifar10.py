"""The study of Ashraf et al. on CIFAR-10: three architectures by batch size, and by learning rate.

    python -m jaxcnn.sweep --config=configs/sweeps/paper_cifar10.py --workdir=runs/paper

Every architecture at batch sizes 32 to 512 with learning rate 0.001, and at learning rates 0.1 to 0.0001 with batch
size 128, three seeds each: 72 trials (those common to both lists run once), with 15 compiled programs.
Optimiser, schedule and length are those of `recipes.paper`.

Variants: `:cores`, all 72 trials on two CPU cores in an hour or two, on a fifth of the real images at half their side,
with narrow networks and three epochs; `:smoke`, in minutes: few steps on the handwritten digits.
"""

from jaxcnn.config import recipes
from jaxcnn.study import sweeps


def get_config(variant: str = ""):
    config = recipes.usual("vgg16", "tfds:cifar10")
    recipes.paper(config)
    return recipes.apply_variant(config, variant, paper=None, cores=sweeps.cores, smoke=sweeps.smoke)


def get_sweep(variant: str = ""):
    return sweeps.paper(small=variant == "smoke", widths=(1 / 4, 1 / 4, 1 / 8) if variant == "cores" else None)
